// What BullMQ makes of the same work: `node bullmq.mjs PORT COMMAND`, with its packages in the folder BULLMQ_FOLDER.
// Worker and producer are processes of their own, as users run them. Times are in milliseconds since 1970.
//   work SLOTS JOBS      prints {"ready"}, runs so many jobs, then prints {"ended_ms", "cpu_ms", "starts": [[name, ms], ...]}
//   share SLOTS          prints {"ready"}, runs jobs beside others until its input ends, then prints {"jobs", "ended_ms"}
//   add JOBS BULK BYTES  adds jobs in bulks, prints {"began_ms", "cpu_ms"}
//   trickle JOBS BYTES   adds one job every 20 ms, prints {"sent": [[name, ms], ...]}
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { finished } from 'node:stream/promises';

const require = createRequire(`${process.env.BULLMQ_FOLDER}/`);
const { Queue, Worker } = require('bullmq');

const [port, command, ...numbers] = process.argv.slice(2);
const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const options = { removeOnComplete: true, removeOnFail: true };
const now = () => performance.timeOrigin + performance.now();
const print = (value) => console.log(JSON.stringify(value));

function cpuMs() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function work(slots, jobs) {
  const starts = [];
  const start = async (job) => { starts.push([job.name, now()]); };
  const worker = new Worker('bench', start, { connection, concurrency: slots });
  let done = 0;
  const allDone = new Promise((resolve) => worker.on('completed', () => { done += 1; if (done === jobs) resolve(); }));
  await worker.waitUntilReady();
  print({ ready: true });
  const cpu = cpuMs();
  await allDone;
  print({ ended_ms: now(), cpu_ms: cpuMs() - cpu, starts });
  await worker.close();
}

async function share(slots) {
  const worker = new Worker('bench', async () => {}, { connection, concurrency: slots });
  let [jobs, ended] = [0, 0];
  worker.on('completed', () => { jobs += 1; ended = now(); });
  await worker.waitUntilReady();
  print({ ready: true });
  await finished(process.stdin.resume());
  print({ jobs, ended_ms: ended });
  await worker.close();
}

async function produce(body) {
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  print(await body(queue));
  await queue.close();
}

const add = (jobs, bulk, bytes) => produce(async (queue) => {
  const payload = 'x'.repeat(bytes);
  const job = (number) => ({ name: `${number}`, data: { payload }, opts: options });
  const [began, cpu] = [now(), cpuMs()];
  for (let from = 0; from < jobs; from += bulk) {
    const count = Math.min(bulk, jobs - from);
    await queue.addBulk(Array.from({ length: count }, (_, offset) => job(from + offset)));
  }
  return { began_ms: began, cpu_ms: cpuMs() - cpu };
});

const trickle = (jobs, bytes) => produce(async (queue) => {
  const sent = [];
  for (let number = 0; number < jobs; number += 1) {
    sent.push([`${number}`, now()]);
    await queue.add(`${number}`, { payload: 'x'.repeat(bytes) }, options);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { sent };
});

await { work, share, add, trickle }[command](...numbers.map(Number));
