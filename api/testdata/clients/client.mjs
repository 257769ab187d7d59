// Speaks to the service through OpenAI's client for Node, as a user's program would.
//
// Usage: node client.mjs BASE_URL KEY PROMPT IMAGE.png, in a folder with node_modules/openai
import assert from "node:assert";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const here = createRequire(pathToFileURL(join(process.cwd(), "x.js")));
const OpenAI = here("openai");
const [url, key, prompt, image] = process.argv.slice(2);
const client = new OpenAI.OpenAI({ baseURL: url, apiKey: key, maxRetries: 0 });

const refused = async (status, call, words) =>
  assert.rejects(client.embeddings.create(call), (e) => e.status === status && e.message.includes(words));

const models = {};
for await (const m of client.models.list()) models[m.id] = m.owned_by;
assert.equal(models[prompt], "starter");
assert.ok("starter" in models);
assert.equal((await client.models.retrieve(prompt)).id, prompt);

// The client asks for base64 by itself where nothing is said, and unpacks it.
const one = await client.embeddings.create({ model: prompt, input: "a cat" });
assert.ok(one.usage.prompt_tokens >= 3 && one.usage.total_tokens === one.usage.prompt_tokens);
const picture = "data:image/png;base64," + readFileSync(image).toString("base64");
const many = await client.embeddings.create({ model: prompt, input: [picture, "a cat"], encoding_format: "float" });
assert.deepEqual(many.data.map((d) => d.index), [0, 1]);
for (const e of [one.data[0], ...many.data])
  assert.ok(Math.abs(e.embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5);
many.data[1].embedding.forEach((x, i) => assert.ok(Math.abs(x - one.data[0].embedding[i]) < 1e-5));

await refused(400, { model: prompt, input: "a", dimensions: 8 }, "dimensions");
await refused(400, { model: prompt, input: [1, 2] }, "token arrays");
await refused(404, { model: "none", input: "a" }, "none");
console.log("node", process.version);
