package io.eventbroker;

import io.eventbroker.v1.SettleResult;

/** What became of an attempt to settle. Only {@link #DONE} changed anything. */
public enum Outcome {
  /** The delivery is settled, or has its new deadline. */
  DONE,
  /** The event was settled before, maybe by a try of the same call whose answer got lost. */
  ALREADY_SETTLED,
  /** The delivery is over, and the event is, or will be, delivered again. */
  OUTDATED,
  /** Not an ack id of this broker. */
  UNKNOWN;

  static Outcome of(SettleResult result) {
    return switch (result.getOutcome()) {
      case SETTLE_OUTCOME_DONE -> DONE;
      case SETTLE_OUTCOME_ALREADY_SETTLED -> ALREADY_SETTLED;
      case SETTLE_OUTCOME_OUTDATED -> OUTDATED;
      default -> UNKNOWN;
    };
  }
}
