// Print the embeddings of some texts, with OpenAI's client: node embed.mjs ADDRESS MODEL TEXT ...
import OpenAI from "openai";

const [address, model, ...input] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "any", maxRetries: 0 });
const answer = await client.embeddings.create({ model, input });
const models = await client.models.list();
let failure;
try {
  await client.embeddings.create({ model: "x", input });
} catch (error) {
  failure = { name: error.constructor.name, code: error.code };
}
const embeddings = answer.data.map((item) => item.embedding);
console.log(JSON.stringify({ embeddings, models: models.data.map((item) => item.id), failure }));
