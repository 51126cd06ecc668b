// Joins acks into few calls: those that come while a call is under way wait, and go together in the next one.

import { type SettleOutcome } from "./gen/eventbroker/v1/subscriber_service_pb.js";

const MOST_ACKS = 1000; // in one call

interface Waiting {
  ackId: string;
  resolve: (outcome: SettleOutcome) => void;
  reject: (error: unknown) => void;
}

export class Acks {
  readonly #call: (ackIds: string[]) => Promise<SettleOutcome[]>;
  #waiting: Waiting[] = [];
  #busy = false;

  constructor(call: (ackIds: string[]) => Promise<SettleOutcome[]>) {
    this.#call = call;
  }

  ack(ackId: string): Promise<SettleOutcome> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ackId, resolve, reject });
      if (!this.#busy) {
        void this.#flush();
      }
    });
  }

  async #flush(): Promise<void> {
    this.#busy = true;
    await Promise.resolve(); // those of the same turn go together
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0, MOST_ACKS);
      try {
        const outcomes = await this.#call(batch.map(({ ackId }) => ackId));
        batch.forEach(({ resolve }, number) => resolve(outcomes[number]!));
      } catch (error) {
        batch.forEach(({ reject }) => reject(error));
      }
    }
    this.#busy = false;
  }
}
