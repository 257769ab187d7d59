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
print("python", openai.__version__)
