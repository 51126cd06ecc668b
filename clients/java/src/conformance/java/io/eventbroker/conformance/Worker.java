package io.eventbroker.conformance;

import io.eventbroker.Consumer;
import io.eventbroker.Delivery;
import io.eventbroker.RejectException;
import io.eventbroker.RetryAfterException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;

/** A consumer under way, with what its handler saw. */
final class Worker {
  Consumer consumer;
  private final Map<String, List<Action>> on;
  private final Map<String, CountDownLatch> finished = new HashMap<>();
  private final Map<String, Integer> begun = new ConcurrentHashMap<>();
  private final Map<String, Integer> done = new ConcurrentHashMap<>();

  /** What a handler does with an event: hold it until `finish`, then fail or succeed. */
  record Action(boolean hold, String fail, String reject, Double retryAfter) {
    static final Action NONE = new Action(false, null, null, null);
  }

  Worker(Map<String, List<Action>> on) {
    this.on = on == null ? Map.of() : on;
    this.on.keySet().forEach(id -> finished.put(id, new CountDownLatch(1)));
  }

  void handle(Delivery delivery) throws Exception {
    var id = delivery.event().getEventId();
    int ordinal = begun.merge(id, 1, Integer::sum);
    var actions = on.getOrDefault(id, List.of());
    var action = ordinal <= actions.size() ? actions.get(ordinal - 1) : Action.NONE;
    if (action.hold) {
      finished.get(id).await();
    }
    done.merge(id, 1, Integer::sum);
    if (action.reject != null) {
      throw new RejectException(action.reject);
    }
    if (action.retryAfter != null) {
      throw new RetryAfterException(action.fail, Play.duration(action.retryAfter));
    }
    if (action.fail != null) {
      throw new Exception(action.fail);
    }
  }

  int begun(String id) {
    return begun.getOrDefault(id, 0);
  }

  int done(String id) {
    return done.getOrDefault(id, 0);
  }

  void finish(String id) {
    finished.get(id).countDown();
  }

  /** Ends it without waiting for it. */
  void leave() {
    consumer.drain();
    finished.keySet().forEach(this::finish);
  }
}
