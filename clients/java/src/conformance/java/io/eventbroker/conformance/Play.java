package io.eventbroker.conformance;

import com.fasterxml.jackson.databind.JsonNode;
import io.eventbroker.Delivery;
import io.eventbroker.EventBroker;
import io.eventbroker.Events;
import io.eventbroker.v1.Event;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;

/** A case under way: what its steps know of each other. */
final class Play implements AutoCloseable {
  static final Duration PATIENCE = Duration.ofSeconds(15); // of a wait

  /** What a step does; it throws if it does not succeed. */
  interface Verb {
    void act(JsonNode arguments) throws Exception;
  }

  final EventBroker broker;
  final String tenant = "t-" + Events.newId();
  final Map<String, Event> published = new HashMap<>(); // by event id, as they were stored
  final Map<String, List<Delivery>> deliveries = new HashMap<>(); // by event id, as they were taken
  final Map<String, Taking> subscriptions = new HashMap<>();
  final Map<String, Worker> workers = new HashMap<>();
  long position; // of the last event that was published
  private final Map<String, Verb> verbs = new HashMap<>();
  private final long end = System.nanoTime() + Case.MOST.toNanos();

  Play(EventBroker broker, String control) {
    this.broker = broker;
    new Publishing(this).verbs(verbs);
    new Subscribing(this).verbs(verbs);
    new Settling(this).verbs(verbs);
    new Handling(this).verbs(verbs);
    new Groups(this).verbs(verbs);
    new Control(this, control).verbs(verbs);
  }

  void act(String verb, JsonNode arguments) throws Exception {
    var known = verbs.get(verb);
    check(known != null, "there is no such verb");
    known.act(arguments);
    check(System.nanoTime() < end, "the case takes too long");
  }

  /** Ends whatever is left. */
  @Override
  public void close() {
    workers.values().forEach(Worker::leave);
    subscriptions.values().forEach(Taking::close);
  }

  /** What a call answers. */
  static <T> T answer(Future<T> call, Duration within) throws Exception {
    try {
      return call.get(within.toMillis(), TimeUnit.MILLISECONDS);
    } catch (ExecutionException failed) {
      throw failed.getCause() instanceof Exception thrown ? thrown : failed;
    }
  }

  /** Tries again until it does not throw. */
  static void eventually(Verb check) throws Exception {
    long end = System.nanoTime() + PATIENCE.toNanos();
    while (true) {
      try {
        check.act(null);
        return;
      } catch (Exception | AssertionError not) {
        if (System.nanoTime() > end) {
          throw new AssertionError("not in time: " + not, not);
        }
      }
      Thread.sleep(20);
    }
  }

  static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new AssertionError(otherwise);
    }
  }

  static void same(String what, Object got, Object wanted) {
    check(Objects.equals(got, wanted), what + " are " + got + ", not " + wanted);
  }

  static <T> List<T> orNone(List<T> list) {
    return list == null ? List.of() : list;
  }

  static Duration duration(double seconds) {
    return Duration.ofNanos(Math.round(seconds * 1e9));
  }

  /** "e1#2" is the second time with the event "e1"; without a number it is 0. */
  record Ordinal(String id, int number) {
    static Ordinal of(String name) {
      int mark = name.lastIndexOf('#');
      return mark > 0 && name.substring(mark + 1).matches("[0-9]+")
          ? new Ordinal(name.substring(0, mark), Integer.parseInt(name.substring(mark + 1)))
          : new Ordinal(name, 0);
    }
  }

  /** The last one of an event that was taken; "e1#1" is the first, and so on. */
  Delivery delivery(String name) {
    var ordinal = Ordinal.of(name);
    var all = deliveries.getOrDefault(ordinal.id, new ArrayList<>());
    int number = ordinal.number == 0 ? all.size() : ordinal.number;
    check(number >= 1 && number <= all.size(), name + " was not taken");
    return all.get(number - 1);
  }
}
