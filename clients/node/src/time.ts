// Durations of the API are numbers of milliseconds; those of the protos are messages.

import { create } from "@bufbuild/protobuf";
import { DurationSchema, type Duration } from "@bufbuild/protobuf/wkt";

export function duration(ms: number): Duration {
  const nanos = Math.round((ms % 1000) * 1e6);
  return create(DurationSchema, { seconds: BigInt(Math.trunc(ms / 1000)), nanos });
}

export function milliseconds(duration: Duration): number {
  return Number(duration.seconds) * 1000 + duration.nanos / 1e6;
}

const MOST_OF_TIMER_MS = 2 ** 31 - 1; // more, such as Infinity, would be over at once

/** Waits; throws the reason of the first signal that is aborted before. */
export function pause(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve, reject) => {
    signals.forEach((signal) => signal?.throwIfAborted());
    const done = () => {
      clearTimeout(timer);
      signals.forEach((signal) => signal?.removeEventListener("abort", aborted));
    };
    const timer = setTimeout(() => resolve(done()), Math.min(ms, MOST_OF_TIMER_MS));
    const aborted = ({ target }: Event) => {
      done();
      reject((target as AbortSignal).reason);
    };
    signals.forEach((signal) => signal?.addEventListener("abort", aborted));
  });
}
