// Runs the cases of tests/conformance against a broker, prints a line for each, and fails if one does.
//
// EVENTBROKER_URL is the broker; EVENTBROKER_CONTROL the port of whoever can restart it, without which the cases that
// need it are left out; EVENTBROKER_CASES the directory of the cases. Arguments choose the cases whose name contains
// one.

import { connect, type Client } from "@eventbroker/client";

import { load, type Case } from "./case.js";
import { Play } from "./play.js";

const SIDE_BY_SIDE = 8;

const wanted = process.argv.slice(2);
const control = process.env["EVENTBROKER_CONTROL"] ?? "";
const tally = { passed: 0, failed: 0 };

function say(what: string, of: Case, error?: unknown): void {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  const why = error === undefined ? "" : `: ${text.replaceAll("\n", " ")}`;
  console.log(`${what.padEnd(8)} ${of.file}: ${of.name}${why}`);
}

async function take(client: Client, of: Case): Promise<void> {
  try {
    await new Play(client, control).run(of);
    tally.passed++;
    say("ok", of);
  } catch (error) {
    tally.failed++;
    say("FAILED", of, error);
  }
}

const cases = load(process.env["EVENTBROKER_CASES"] ?? "../../tests/conformance/cases").filter(
  ({ name }) => wanted.length === 0 || wanted.some((each) => name.includes(each)),
);
const client = await connect(process.env["EVENTBROKER_URL"] ?? "127.0.0.1:50051", { patienceMs: 30_000 });
const calm = cases.filter((each) => !each.needs_control).values();
await Promise.all(
  Array.from({ length: SIDE_BY_SIDE }, async () => {
    for (const each of calm) {
      await take(client, each);
    }
  }),
);
for (const each of cases.filter((each) => each.needs_control)) {
  if (control) {
    await take(client, each); // one after the other, when nobody is disturbed
  } else {
    say("left out", each);
  }
}
client.close();
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exitCode = tally.failed > 0 || tally.passed === 0 ? 1 : 0;
