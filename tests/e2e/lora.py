"""Makes a LoRA for the small model: random, but the same for the same seed, and strong enough to change every answer.

No training: it proves that the right weights answer, not that they answer well.
"""
import sys

from harness import CLIENTS, MODEL

sys.path.insert(0, str(CLIENTS))
WHY_NOT = ""
try:
    import gguf
    import numpy
except ImportError as missing:
    WHY_NOT = f"gguf is not in {CLIENTS} ({missing}); packaging/setup/fetch-test-clients fetches it"
if not MODEL.exists():
    WHY_NOT = "the small model is not there; packaging/setup/fetch-model fetches it"

RANK = 4
STRENGTH = 2.0  # of the change, as a multiple of what it is added to; with 1.0 two of them could still agree


def make_adapter(file, seed):
    dice = numpy.random.default_rng(seed)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for tensor in gguf.GGUFReader(MODEL).tensors:
        if not tensor.name.endswith("attn_q.weight"):
            continue
        inputs, outputs = (int(size) for size in tensor.shape)
        down = dice.standard_normal((RANK, inputs)) * (STRENGTH / inputs) ** 0.5
        up = dice.standard_normal((outputs, RANK)) * STRENGTH ** 0.5
        writer.add_tensor(tensor.name + ".lora_a", down.astype("float32"))
        writer.add_tensor(tensor.name + ".lora_b", up.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
