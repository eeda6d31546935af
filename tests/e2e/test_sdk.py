"""The vendors' own Python SDKs against a real engine, over TCP with a key."""
import sys
import unittest

from harness import CLIENTS, MODEL, Torpord

WHY_NOT = ""
sys.path.insert(0, str(CLIENTS))
try:
    import anthropic
    import openai
except ImportError as missing:
    WHY_NOT = f"the SDKs are not in {CLIENTS} ({missing}); packaging/setup/fetch-test-clients fetches them"
if not MODEL.exists():
    WHY_NOT = "the small model is not there; packaging/setup/fetch-model fetches it"

MESSAGES = [{"role": "user", "content": "Say hi."}]
WRONG_KEY = "tp-" + "x" * 43


@unittest.skipIf(WHY_NOT, WHY_NOT)
class SdkTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.torpord = Torpord()
        assert cls.torpord.start() == "ready\n"
        cls.torpord.add_model("smol", args=["-c", "2048"])
        cls.torpord.add_model("embed", args=["--embeddings", "--pooling", "mean", "-c", "512"])
        cls.key = cls.torpord.call("POST", "/api/keys", {"name": "sdk"})[2]["key"]

    @classmethod
    def tearDownClass(cls):
        cls.torpord.remove()

    def make(self, client, path, key):
        made = client(base_url=f"http://127.0.0.1:{self.torpord.port}{path}", api_key=key, max_retries=0)
        self.addCleanup(made.close)
        return made

    def openai(self, key=None):
        return self.make(openai.OpenAI, "/v1", key or self.key)

    def anthropic(self, key=None):
        return self.make(anthropic.Anthropic, "", key or self.key)

    def test_openai_chat(self):
        whole = self.openai().chat.completions.create(model="smol", messages=MESSAGES, max_tokens=8)
        self.assertEqual((whole.model, whole.choices[0].message.role), ("smol", "assistant"))
        self.assertTrue(whole.choices[0].message.content)
        self.assertGreater(whole.usage.completion_tokens, 0)
        stream = self.openai().chat.completions.create(model="smol", messages=MESSAGES, max_tokens=8, stream=True,
                                                       stream_options={"include_usage": True})
        pieces = list(stream)
        self.assertTrue("".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices))
        self.assertGreater(pieces[-1].usage.completion_tokens, 0)

    def test_openai_completions(self):
        whole = self.openai().completions.create(model="smol", prompt="Once upon", max_tokens=8)
        self.assertTrue(whole.choices[0].text)
        pieces = list(self.openai().completions.create(model="smol", prompt="Once upon", max_tokens=8, stream=True))
        self.assertTrue("".join(piece.choices[0].text for piece in pieces if piece.choices))

    def test_openai_responses(self):
        whole = self.openai().responses.create(model="smol", input="Say hi.", max_output_tokens=8)
        self.assertTrue(whole.output_text)
        events = list(self.openai().responses.create(model="smol", input="Say hi.", max_output_tokens=8, stream=True))
        types = [event.type for event in events]
        self.assertEqual(types[0], "response.created")
        self.assertIn("response.output_text.delta", types)
        self.assertEqual(types[-1], "response.completed")
        self.assertEqual(events[-1].response.model, "smol")

    def test_openai_embeddings(self):
        made = self.openai().embeddings.create(model="embed", input=["hello", "goodbye"])
        self.assertEqual(len(made.data), 2)
        self.assertGreater(len(made.data[0].embedding), 100)
        self.assertNotEqual(made.data[0].embedding, made.data[1].embedding)

    def test_openai_models(self):
        self.assertEqual([model.id for model in self.openai().models.list()], ["embed", "smol"])
        model = self.openai().models.retrieve("smol")
        self.assertEqual((model.id, model.object), ("smol", "model"))
        self.assertGreater(model.created, 1_500_000_000)

    def test_openai_errors(self):
        with self.assertRaises(openai.NotFoundError) as raised:
            self.openai().chat.completions.create(model="smoll", messages=MESSAGES)
        self.assertIn("did you mean smol?", raised.exception.message)
        with self.assertRaises(openai.NotFoundError):
            self.openai().models.retrieve("smoll")
        with self.assertRaises(openai.AuthenticationError):
            self.openai(WRONG_KEY).chat.completions.create(model="smol", messages=MESSAGES)
        with self.assertRaises(openai.AuthenticationError):
            self.openai(WRONG_KEY).models.list()
        with self.assertRaises(openai.BadRequestError):
            self.openai().chat.completions.create(model=["smol"], messages=MESSAGES)

    def test_anthropic_messages(self):
        # Temperature 0: llama-server leaves message_start out when the first token is a part of a character.
        asked = {"model": "smol", "max_tokens": 8, "messages": MESSAGES, "extra_body": {"temperature": 0}}
        whole = self.anthropic().messages.create(**asked)
        self.assertEqual((whole.model, whole.role, whole.type), ("smol", "assistant", "message"))
        self.assertTrue(whole.content[0].text)
        self.assertGreater(whole.usage.output_tokens, 0)
        with self.anthropic().messages.stream(**asked) as stream:
            self.assertTrue("".join(stream.text_stream))
            final = stream.get_final_message()
        self.assertGreater(final.usage.output_tokens, 0)
        self.assertIsNotNone(final.stop_reason)

    def test_anthropic_count_tokens(self):
        counted = self.anthropic().messages.count_tokens(model="smol", messages=MESSAGES)
        self.assertGreater(counted.input_tokens, 0)

    def test_anthropic_models(self):
        self.assertEqual([model.id for model in self.anthropic().models.list()], ["embed", "smol"])
        model = self.anthropic().models.retrieve("smol")
        self.assertEqual((model.id, model.type, model.display_name), ("smol", "model", "smol"))
        self.assertGreater(model.created_at.year, 2000)

    def test_anthropic_errors(self):
        with self.assertRaises(anthropic.NotFoundError) as raised:
            self.anthropic().messages.create(model="smoll", max_tokens=8, messages=MESSAGES)
        self.assertIn("did you mean smol?", str(raised.exception))
        with self.assertRaises(anthropic.NotFoundError):
            self.anthropic().models.retrieve("smoll")
        with self.assertRaises(anthropic.AuthenticationError):
            self.anthropic(WRONG_KEY).messages.create(model="smol", max_tokens=8, messages=MESSAGES)
        with self.assertRaises(anthropic.AuthenticationError):
            self.anthropic(WRONG_KEY).models.list()


if __name__ == "__main__":
    unittest.main()
