// The official client for JavaScript doing one piece of work; prints what it took, as JSON.

import { Ollama } from "ollama";

const [described, url] = process.argv.slice(2);
const work = JSON.parse(described);
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const client = new Ollama({ host: url });

async function stream(model) {
  let count = 0;
  for await (const part of await client.chat({ model, messages, stream: true })) {
    part.message.content;
    count += 1;
  }
  return count;
}

async function embed(model, number) {
  const input = Array.from(
    { length: work.texts },
    (_, part) => `Text number ${number} of many, part ${part}.`,
  );
  return (await client.embed({ model, input })).embeddings.length;
}

// So many streams or requests, so many at a time; how many units that brought.
async function several(model, operations) {
  let next = 0;
  let count = 0;
  async function takeTurns() {
    while (next < operations) {
      const number = next++;
      const brought = await (work.kind === "stream" ? stream(model) : embed(model, number));
      count += brought;
    }
  }
  const tasks = Array.from({ length: Math.min(work.in_flight, operations) }, takeTurns);
  await Promise.all(tasks);
  return count;
}

const usage = async () => (await (await fetch(`${url}/bench/usage`)).json()).cpu;

await several(work.warm_up_model, work.warm_up);
const serverBefore = await usage();
const cpuBefore = process.cpuUsage();
const started = process.hrtime.bigint();
const count = await several(work.model, work.operations);
const wall = Number(process.hrtime.bigint() - started) / 1e9;
const cpu = process.cpuUsage(cpuBefore);
const server = (await usage()) - serverBefore;
const expected = work.operations * (work.kind === "stream" ? work.units : work.texts);
if (count !== expected) throw new Error(`${work.name}: ${count} of ${expected}`);
console.log(JSON.stringify({ cpu: (cpu.user + cpu.system) / 1e6, wall, server }));
process.exit(0);
