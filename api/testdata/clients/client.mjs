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
// A caption, a streamed answer, an image and a streamed preview.
const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url: picture } }] }];
const said = await client.chat.completions.create({ model: "teller", messages, temperature: 0 });
const text = said.choices[0].message.content;
assert.ok(text && ["stop", "length"].includes(said.choices[0].finish_reason) && said.usage.completion_tokens >= 1);
const pieces = [];
let usage = null;
for await (const chunk of await client.chat.completions.create({ model: "teller", messages, temperature: 0, stream: true, stream_options: { include_usage: true } })) {
  pieces.push(...chunk.choices.map((c) => c.delta.content).filter(Boolean));
  usage = chunk.usage ?? usage;
}
assert.equal(pieces.join(""), text);
assert.ok(pieces.length > 1 && usage.total_tokens === said.usage.total_tokens);

const ours = { prompt: "a red cat", model: "painter", seed: 7, steps: 4 };
const drawn = await client.images.generate({ ...ours, n: 2, response_format: "b64_json" });
const png = Buffer.from(drawn.data[0].b64_json, "base64");
assert.ok(png.subarray(1, 4).toString() === "PNG" && png.includes("foretoken") && drawn.data[1].b64_json !== drawn.data[0].b64_json);
const events = [];
for await (const e of await client.images.generate({ ...ours, stream: true, partial_images: 2 })) events.push(e);
assert.deepEqual(events.map((e) => e.type), ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]);
assert.deepEqual(events.slice(0, 2).map((e) => e.partial_image_index), [0, 1]);
assert.ok(events[2].b64_json.length > 100);
const edit = async () => ({ ...ours, image: await OpenAI.toFile(readFileSync(image), "image.png", { type: "image/png" }), size: "32x32" });
const edited = await client.images.edit(await edit());
assert.ok(edited.data[0].url.startsWith("http"));
const edits = [];
for await (const e of await client.images.edit({ ...(await edit()), stream: true, partial_images: 2 })) edits.push(e);
assert.deepEqual(edits.map((e) => e.type), ["image_edit.partial_image", "image_edit.partial_image", "image_edit.completed"]);
assert.equal(edits[2].usage.total_tokens, edited.usage.total_tokens);
console.log("node", process.version);
