"""A provider that says what the test decides: `reply(request)` gives a Reply for each request. It speaks three wires, each as its
provider documents it: OpenAI's Chat Completions and Responses, and Anthropic's Messages; the path says which."""
import http.server
import json
import threading


class Reply:
    def __init__(self, text="", calls=(), finish=None, usage=(10, 5), status=200, cut=False, wait=None, raw=None, reasoning=""):
        """`calls`: (tool, input) each, or (tool, input, id); `cut`: the connection ends in the middle; `wait`: an event that is
        awaited after the first piece; `raw`: bytes that are sent instead of all that."""
        self.text, self.calls, self.usage, self.status, self.cut, self.wait, self.raw = text, calls, usage, status, cut, wait, raw
        self.reasoning = reasoning
        self.finish = finish or ("tool_calls" if calls else "stop")


class ScriptedProvider:
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

        wire = {"/chat/completions": self.send_chat, "/responses": self.send_responses, "/messages": self.send_messages}
        next(send for end, send in wire.items() if handler.path.endswith(end))(handler, reply, number)

    def halves(self, text):
        half = len(text) // 2
        return [piece for piece in (text[:half], text[half:]) if piece]

    def calls_of(self, reply, number):
        for index, call in enumerate(reply.calls):
            arguments = json.dumps(call[1]) if not isinstance(call[1], str) else call[1]
            yield call[0], arguments, call[2] if len(call) > 2 else f"call_{number}_{index}"

    def send_messages(self, handler, reply, number):
        def event(kind, **data):
            handler.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())
            handler.wfile.flush()

        cached = reply.usage[2] if reply.usage and len(reply.usage) > 2 else 0
        begun = {"input_tokens": reply.usage[0] - cached, "cache_read_input_tokens": cached, "output_tokens": 1} if reply.usage else {}
        event("message_start", message={"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "scripted", "usage": begun})
        event("ping")
        blocks = []
        if reply.reasoning:
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""},
                           [{"type": "thinking_delta", "thinking": piece} for piece in self.halves(reply.reasoning)] +
                           [{"type": "signature_delta", "signature": f"signed:{reply.reasoning}"}]))
        if reply.text:
            blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in self.halves(reply.text)]))
        for tool, arguments, name in self.calls_of(reply, number):
            blocks.append(({"type": "tool_use", "id": name, "name": tool, "input": {}},
                           [{"type": "input_json_delta", "partial_json": piece} for piece in self.halves(arguments)]))
        for index, (block, deltas) in enumerate(blocks):
            event("content_block_start", index=index, content_block=block)
            for delta in deltas:
                event("content_block_delta", index=index, delta=delta)
                if reply.wait:
                    reply.wait.wait(60)
            if reply.cut:
                return
            event("content_block_stop", index=index)
        stop = {"tool_calls": "tool_use", "stop": "end_turn", "length": "max_tokens"}[reply.finish]
        event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": reply.usage[1]} if reply.usage else {})
        event("message_stop")

    def send_responses(self, handler, reply, number):
        def event(kind, **data):
            handler.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())
            handler.wfile.flush()

        event("response.created", response={"id": f"resp_{number}", "status": "in_progress"})
        items = []
        if reply.reasoning:
            item = {"type": "reasoning", "id": f"rs_{number}", "summary": [{"type": "summary_text", "text": reply.reasoning}],
                    "encrypted_content": f"sealed:{reply.reasoning}"}
            items.append((item, "response.reasoning_summary_text.delta", reply.reasoning))
        if reply.text:
            item = {"type": "message", "id": f"m_{number}", "role": "assistant", "content": [{"type": "output_text", "text": reply.text}]}
            items.append((item, "response.output_text.delta", reply.text))
        for tool, arguments, name in self.calls_of(reply, number):
            items.append(({"type": "function_call", "id": "fc_" + name, "call_id": name, "name": tool, "arguments": arguments},
                          "response.function_call_arguments.delta", arguments))
        for index, (item, kind, text) in enumerate(items):
            empty = {"content": [], "summary": [], "arguments": ""}
            event("response.output_item.added", output_index=index, item={key: empty.get(key, value) for key, value in item.items()})
            for piece in self.halves(text):
                event(kind, output_index=index, delta=piece)
                if reply.wait:
                    reply.wait.wait(60)
            if reply.cut:
                return
            event("response.output_item.done", output_index=index, item=item)
        usage = None
        if reply.usage:
            cached = reply.usage[2] if len(reply.usage) > 2 else 0
            usage = {"input_tokens": reply.usage[0], "output_tokens": reply.usage[1], "input_tokens_details": {"cached_tokens": cached}}
        event("response.completed", response={"id": f"resp_{number}", "model": "scripted", "status": "completed", "usage": usage})

    def send_chat(self, handler, reply, number):
        def chunk(delta, finish=None, **more):
            data = {"id": f"chat-{number}", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
                    "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
            handler.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
            handler.wfile.flush()

        chunk({"role": "assistant", "content": ""})
        for piece in self.halves(reply.reasoning):
            chunk({"reasoning_content": piece})
        for piece in self.halves(reply.text):
            chunk({"content": piece})
            if reply.wait:
                reply.wait.wait(60)
        if reply.wait and not reply.text:
            reply.wait.wait(60)
        if reply.cut:
            return
        for index, (tool, arguments, name) in enumerate(self.calls_of(reply, number)):
            chunk({"tool_calls": [{"index": index, "id": name, "type": "function", "function": {"name": tool, "arguments": ""}}]})
            for piece in (arguments[:5], arguments[5:]):
                chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        chunk({}, reply.finish)
        if reply.usage:
            data = {"id": f"chat-{number}", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [],
                    "usage": {"prompt_tokens": reply.usage[0], "completion_tokens": reply.usage[1], "total_tokens": sum(reply.usage[:2]),
                              "prompt_tokens_details": {"cached_tokens": reply.usage[2] if len(reply.usage) > 2 else 0}}}
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
