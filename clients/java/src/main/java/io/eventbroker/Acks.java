package io.eventbroker;

import io.grpc.Context;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/** Joins acks into few calls: those that come while a call is under way wait, and go together in the next one. */
final class Acks {
  private static final int MOST = 1000; // in one call

  private final Function<List<String>, CompletableFuture<List<Outcome>>> call;
  private List<Ack> waiting = new ArrayList<>();
  private boolean busy;

  private record Ack(String id, CompletableFuture<Outcome> outcome) {}

  Acks(Function<List<String>, CompletableFuture<List<Outcome>>> call) {
    this.call = call;
  }

  CompletableFuture<Outcome> ack(String id) {
    var ack = new Ack(id, new CompletableFuture<>());
    synchronized (this) {
      waiting.add(ack);
      if (busy) {
        return ack.outcome;
      }
      busy = true;
    }
    next();
    return ack.outcome;
  }

  private void next() {
    List<Ack> batch;
    synchronized (this) {
      int count = Math.min(waiting.size(), MOST);
      batch = waiting.subList(0, count);
      waiting = new ArrayList<>(waiting.subList(count, waiting.size()));
      busy = count > 0;
    }
    if (batch.isEmpty()) {
      return;
    }
    var ids = batch.stream().map(Ack::id).toList();
    // Not in the context of whoever acks: the call is not for one alone.
    Context.ROOT.run(() -> call.apply(ids).whenComplete((outcomes, thrown) -> {
      next();
      for (int number = 0; number < batch.size(); number++) {
        if (thrown == null) {
          batch.get(number).outcome.complete(outcomes.get(number));
        } else {
          batch.get(number).outcome.completeExceptionally(EventBrokerException.of(thrown));
        }
      }
    }));
  }
}
