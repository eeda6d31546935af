"""A provider that speaks OpenAI's chat wire and says what the test decides: `reply(request)` gives a Reply for each."""
import http.server
import json
import threading


class Reply:
    def __init__(self, text="", calls=(), finish=None, usage=(10, 5), status=200, cut=False, wait=None, raw=None):
        """`calls`: (tool, input) each, or (tool, input, id); `cut`: the connection ends in the middle; `wait`: an event that is
        awaited after the first piece; `raw`: bytes that are sent instead of all that."""
        self.text, self.calls, self.usage, self.status, self.cut, self.wait, self.raw = text, calls, usage, status, cut, wait, raw
        self.finish = finish or ("tool_calls" if calls else "stop")


class ScriptedChat:
    def __init__(self, reply):
        self.reply = reply
        self.requests = []
        self.lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.requests.append(request)
                    number = len(outer.requests)
                try:
                    outer.send(self, outer.reply(request), number)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.close_connection = True

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients go away
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def send(self, handler, reply, number):
        if reply.status != 200:
            body = json.dumps({"error": {"message": "scripted to fail", "type": "server_error"}}).encode()
            handler.send_response(reply.status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        if reply.raw is not None:
            handler.wfile.write(reply.raw)
            return

        def chunk(delta, finish=None, **more):
            data = {"id": f"chat-{number}", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
            handler.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
            handler.wfile.flush()

        chunk({"role": "assistant", "content": ""})
        half = len(reply.text) // 2
        for piece in (reply.text[:half], reply.text[half:]):
            if piece:
                chunk({"content": piece})
                if reply.wait:
                    reply.wait.wait(60)
        if reply.wait and not reply.text:
            reply.wait.wait(60)
        if reply.cut:
            return
        for index, call in enumerate(reply.calls):
            tool, arguments = call[0], json.dumps(call[1]) if not isinstance(call[1], str) else call[1]
            name = call[2] if len(call) > 2 else f"call_{number}_{index}"
            chunk({"tool_calls": [{"index": index, "id": name, "type": "function", "function": {"name": tool, "arguments": ""}}]})
            for piece in (arguments[:5], arguments[5:]):
                chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        chunk({}, reply.finish)
        if reply.usage:
            data = {"id": f"chat-{number}", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [],
                    "usage": {"prompt_tokens": reply.usage[0], "completion_tokens": reply.usage[1], "total_tokens": sum(reply.usage)}}
            handler.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
        handler.wfile.write(b"data: [DONE]\n\n")


def script(*replies):
    """One after the other; after the last: "That was all."."""
    waiting = list(replies)
    lock = threading.Lock()

    def reply(_):
        with lock:
            return waiting.pop(0) if waiting else Reply("That was all.")
    return reply
