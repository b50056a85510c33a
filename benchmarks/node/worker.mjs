// The official client for JavaScript doing one piece of work; prints what it took, as JSON.

import { Ollama } from "ollama";

const [described, url] = process.argv.slice(2);
const work = JSON.parse(described);
const messages = [{ role: "user", content: "Why is the sky blue?" }];
const client = new Ollama({ host: url });

async function stream(model, first) {
  let count = 0;
  for await (const part of await client.chat({ model, messages, stream: true })) {
    part.message.content;
    count += 1;
    if (count === 1) first?.();
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
      const brought = await (work.kind === "embed" ? embed(model, number) : stream(model));
      count += brought;
    }
  }
  const tasks = Array.from({ length: Math.min(work.in_flight, operations) }, takeTurns);
  await Promise.all(tasks);
  return count;
}

// All streams at the same time, each opened when one before it has its first part.
async function together(opened) {
  let next = 0;
  let firsts = 0;
  const streams = [];
  await new Promise((resolve) => {
    function open() {
      if (next === work.operations) return;
      next += 1;
      streams.push(
        stream(work.asked_model, () => {
          firsts += 1;
          if (firsts === work.operations) {
            opened();
            resolve();
          }
          open();
        }),
      );
    }
    for (let number = 0; number < work.opening; number++) open();
  });
  return (await Promise.all(streams)).reduce((sum, each) => sum + each, 0);
}

const usage = async () => (await (await fetch(`${url}/bench/usage`)).json()).cpu;
function now() {
  const { user, system } = process.cpuUsage();
  return { cpu: (user + system) / 1e6, wall: Number(process.hrtime.bigint()) / 1e9 };
}

await several(work.warm_up_model, work.warm_up);
const serverBefore = await usage();
const began = now();
let opened;
const gated = work.kind === "tokens" || work.kind === "opening";
const count = gated
  ? await together(() => {
      opened = now();
    })
  : await several(work.model, work.operations);
const ended = now();
const server = ((await usage()) - serverBefore) / (ended.wall - began.wall);
if (count !== work.expected) throw new Error(`${work.name}: ${count} of ${work.expected}`);
const first = work.kind === "tokens" ? opened : began;
const last = work.kind === "opening" ? opened : ended;
console.log(JSON.stringify({ cpu: last.cpu - first.cpu, wall: last.wall - first.wall, server }));
process.exit(0);
