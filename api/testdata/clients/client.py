"""Speaks to the service through OpenAI's client for Python, as a user's program would.

Usage: client.py BASE_URL KEY PROMPT IMAGE.png
"""
import base64
import math
import sys

import openai

url, key, prompt, image = sys.argv[1:]
client = openai.OpenAI(base_url=url, api_key=key, max_retries=0)


def refused(status, **call):
    try:
        client.embeddings.create(**call)
    except openai.APIStatusError as e:
        assert e.status_code == status, e
        return e.body["message"]
    raise SystemExit(f"accepted: {call}")


models = {m.id: m.owned_by for m in client.models.list()}
assert models[prompt] == "starter" and "starter" in models, models
assert client.models.retrieve(prompt).id == prompt

# The client asks for base64 by itself where nothing is said, and unpacks it.
one = client.embeddings.create(model=prompt, input="a cat")
assert one.usage.prompt_tokens >= 3 and one.usage.total_tokens == one.usage.prompt_tokens, one.usage
picture = "data:image/png;base64," + base64.b64encode(open(image, "rb").read()).decode()
many = client.embeddings.create(model=prompt, input=[picture, "a cat"], encoding_format="float")
assert [d.index for d in many.data] == [0, 1]
for e in [one.data[0], *many.data]:
    assert abs(math.fsum(x * x for x in e.embedding) - 1) < 1e-5
assert max(abs(a - b) for a, b in zip(one.data[0].embedding, many.data[1].embedding)) < 1e-5

assert "dimensions" in refused(400, model=prompt, input="a", dimensions=8)
assert "token arrays" in refused(400, model=prompt, input=[1, 2])
assert "none" in refused(404, model="none", input="a")
# A caption, a streamed answer, an image and a streamed preview.
question = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture}}]}]
said = client.chat.completions.create(model="teller", messages=question, temperature=0)
text = said.choices[0].message.content
assert text and said.choices[0].finish_reason in ("stop", "length") and said.usage.completion_tokens >= 1, said
pieces, usage = [], None
for chunk in client.chat.completions.create(model="teller", messages=question, temperature=0, stream=True, stream_options={"include_usage": True}):
    pieces += [c.delta.content for c in chunk.choices if c.delta.content]
    usage = chunk.usage or usage
assert "".join(pieces) == text and len(pieces) > 1 and usage.total_tokens == said.usage.total_tokens, (pieces, usage)

drawn = client.images.generate(model="painter", prompt="a red cat", response_format="b64_json", n=2, extra_body={"seed": 7, "steps": 4})
first = base64.b64decode(drawn.data[0].b64_json)
assert first.startswith(b"\x89PNG") and b"foretoken" in first and drawn.data[1].b64_json != drawn.data[0].b64_json
events = list(client.images.generate(model="painter", prompt="a red cat", stream=True, partial_images=2, extra_body={"seed": 7, "steps": 4}))
assert [e.type for e in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"], [e.type for e in events]
assert [e.partial_image_index for e in events[:2]] == [0, 1] and base64.b64decode(events[2].b64_json).startswith(b"\x89PNG")
edit = dict(model="painter", prompt="a red cat", image=open(image, "rb"), size="32x32", extra_body={"seed": 7, "steps": 4})
events = list(client.images.edit(**edit, stream=True, partial_images=2))
assert [e.type for e in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"], [e.type for e in events]
used = events[2].usage
assert used.input_tokens_details.image_tokens == used.output_tokens > 0 and drawn.usage.output_tokens == 2 * used.output_tokens, (used, drawn.usage)
varied = client.images.create_variation(model="painter", image=open(image, "rb"), size="32x32", extra_body={"steps": 4})
assert varied.data[0].url.startswith("http"), varied
print("python", openai.__version__)
