package io.eventbroker;

import io.eventbroker.v1.AggregateExpectation;

/** What must hold of an aggregate for events to be stored; otherwise the error's reason is VERSION_CONFLICT. */
public final class Expect {
  private Expect() {}

  /** The aggregate is at exactly this version; 0: it has no event yet. */
  public static AggregateExpectation atVersion(String aggregateType, String aggregateId, long version) {
    return of(aggregateType, aggregateId).setVersion(version).build();
  }

  /** The aggregate has at least one event, or none. */
  public static AggregateExpectation exists(String aggregateType, String aggregateId, boolean exists) {
    return of(aggregateType, aggregateId).setExists(exists).build();
  }

  private static AggregateExpectation.Builder of(String aggregateType, String aggregateId) {
    return AggregateExpectation.newBuilder().setAggregateType(aggregateType).setAggregateId(aggregateId);
  }
}
