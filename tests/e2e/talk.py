"""A client of one session: sends prompts, reads events and goes on reading after whatever ended the stream."""
import http.client
import json
import time

from harness import SECONDS_MAX


class Talk:
    def __init__(self, torpord, folder, model="scripted", mode="workspace-write"):
        self.torpord = torpord
        status, _, answer = torpord.call("POST", "/api/sessions", {"folder": str(folder), "model": model, "mode": mode})
        assert status in (200, 201), answer
        self.id = answer["id"]
        self.events = []

    def post(self, verb, body=None):
        return self.torpord.call("POST", f"/api/sessions/{self.id}/{verb}", {} if body is None else body)

    def prompt(self, text):
        status, _, answer = self.post("prompt", {"text": text})
        assert status == 202, answer
        return answer["event"]

    def answer(self, question, answer="once", message=None, headers=None):
        body = {"question": question, "answer": answer} | ({"message": message} if message else {})
        return self.torpord.call("POST", f"/api/sessions/{self.id}/answer", body, headers)

    def read(self, is_enough, follow=True):
        """Events are added to self.events, each once and in order, until `is_enough(event)`, or what is stored ends."""
        connection = self.torpord.connection()
        last = self.events[-1]["seq"] if self.events else 0
        try:
            connection.request("GET", f"/api/sessions/{self.id}/events?after={last}" + ("" if follow else "&follow=false"))
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            kind, number, data = "", None, ""
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line[7:]
                elif line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("data: "):
                    data += line[6:]
                elif not line and data:
                    event = json.loads(data) | {"event": kind}
                    if number is not None:
                        assert number == (self.events[-1]["seq"] if self.events else 0) + 1, (number, self.events[-1:])
                        event["seq"] = number
                        self.events.append(event)
                        if is_enough(event):
                            return True
                    kind, number, data = "", None, ""
        finally:
            connection.close()
        return False

    def wait_for(self, kind, after=0, **fields):
        """The first event of this kind after that number, with these fields."""
        def fits(event):
            return event["event"] == kind and event["seq"] > after and all(event.get(name) == value for name, value in fields.items())
        found = [event for event in self.events if fits(event)]
        if found:
            return found[0]
        end = time.monotonic() + SECONDS_MAX
        while time.monotonic() < end:
            try:
                if self.read(fits):
                    return self.events[-1]
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)  # the daemon is down, or ended the stream
        raise AssertionError(f"no {kind} {fields} after {after}: {[event['event'] for event in self.events][-30:]}\n{self.torpord.log()[-2000:]}")

    def turn(self, text):
        """A prompt, and how its turn ended."""
        number = self.prompt(text)
        return self.wait_for("turn_ended", number, turn=number)

    def all(self):
        self.read(lambda event: False, follow=False)
        return self.events

    def kinds(self):
        return [event["event"] for event in self.all()]

    def last(self, kind):
        return [event for event in self.all() if event["event"] == kind][-1]
