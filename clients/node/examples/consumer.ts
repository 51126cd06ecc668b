// Handles what happens to users, until it is interrupted.

import { connect, Reject, typedData, type Delivery } from "@eventbroker/client";

function handle({ event }: Delivery): void {
  const data = typedData(event);
  switch (data?.$typeName) {
    case "eventbroker.events.v1.UserCreated":
      console.log("welcome", data.firstName); // an error here would be a retry
      break;
    case "eventbroker.events.v1.UserStatusChanged":
      console.log("now", data.newStatus);
      break;
    case undefined:
      throw new Reject("not an event of the contract"); // no attempt can succeed: a dead letter
  }
}

const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort()).once("SIGTERM", () => interrupted.abort());
const { signal } = interrupted;

const url = process.env["EVENTBROKER_URL"] ?? "127.0.0.1:50051";
const client = await connect(url, { tenant: "acme", logger: console, signal });
try {
  await client.consume("mailer", handle, { types: ["user.*"], signal });
  console.log("drained");
} finally {
  client.close();
}
