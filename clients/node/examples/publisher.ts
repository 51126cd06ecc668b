// Publishes that a user was created, and then that its status changed.

import { atVersion, connect, EventBrokerError, newId, userCreated, userStatusChanged } from "@eventbroker/client";

const client = await connect(process.env["EVENTBROKER_URL"] ?? "127.0.0.1:50051", { tenant: "acme" });
try {
  const user = `u-${newId()}`;
  const created = userCreated(user, {
    email: "ada@example.com",
    username: "ada",
    firstName: "Ada",
    lastName: "Lovelace",
    status: "active",
  });
  const result = await client.publish(created);
  console.log(`${created.eventType} is at position ${result.position}`);

  const locked = userStatusChanged(user, { oldStatus: "active", newStatus: "locked", reason: "asked for" });
  await client.publishMany([locked], { expect: [atVersion("User", user, result.aggregateVersion)] });
  console.log(`${locked.eventType} is stored`);
} catch (error) {
  if (!(error instanceof EventBrokerError && error.reason === "VERSION_CONFLICT")) {
    throw error;
  }
  console.log("somebody else was faster:", error.conflicts);
} finally {
  client.close();
}
