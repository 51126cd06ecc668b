package io.eventbroker.conformance;

import com.fasterxml.jackson.annotation.JsonFormat;
import com.fasterxml.jackson.databind.JsonNode;
import io.eventbroker.Delivery;
import io.eventbroker.SubscribeOptions;
import io.eventbroker.v1.Event;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;

/** The verbs that take deliveries by hand. */
final class Subscribing {
  private final Play play;

  /** What subscribe and run say of the group. */
  record Wish(
      String as, String group, List<String> eventTypes, Double ackDeadline, String consumerId, Integer maxUnsettled,
      Refusal error, Integer concurrency, Map<String, List<Worker.Action>> on) {

    SubscribeOptions options(String tenant) {
      var options = SubscribeOptions.defaults().tenantId(tenant);
      if (eventTypes != null) {
        options = options.eventTypes(eventTypes.toArray(String[]::new));
      }
      if (ackDeadline != null) {
        options = options.ackDeadline(Play.duration(ackDeadline));
      }
      if (consumerId != null) {
        options = options.consumerId(consumerId);
      }
      if (maxUnsettled != null) {
        options = options.maxUnsettled(maxUnsettled);
      }
      return concurrency == null ? options : options.concurrency(concurrency);
    }
  }

  private record Take(
      @JsonFormat(with = JsonFormat.Feature.ACCEPT_SINGLE_VALUE_AS_ARRAY) List<String> from,
      List<String> events, int attempt, Map<String, Integer> counts, Map<String, Map<String, String>> like) {}

  private record None(String from, double seconds) {}

  private record Taken(String from, Delivery delivery) {}

  Subscribing(Play play) {
    this.play = play;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    verbs.put("subscribe", this::subscribe);
    verbs.put("take", this::take);
    verbs.put("expect_none_within", this::expectNoneWithin);
  }

  private void subscribe(JsonNode arguments) throws Exception {
    var wish = Case.read(arguments, Wish.class);
    var taking = new Taking();
    var subscribing = play.broker.subscribe(wish.group, wish.options(play.tenant), taking::add);
    taking.subscription = Refusal.or(wish.error, () -> Play.answer(subscribing, Play.PATIENCE));
    if (taking.subscription != null) {
      play.subscriptions.put(wish.as, taking);
    }
  }

  private void take(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Take.class);
    var missing = new HashSet<>(say.events);
    var counts = new HashMap<String, Integer>();
    long end = System.nanoTime() + Play.PATIENCE.toNanos();
    while (!missing.isEmpty()) {
      var taken = next(say.from, end);
      Play.check(taken != null, "without " + missing);
      var delivery = taken.delivery;
      var id = delivery.event().getEventId();
      Play.check(missing.remove(id), id + " came, which was not to come");
      counts.merge(taken.from, 1, Integer::sum);
      play.deliveries.computeIfAbsent(id, unused -> new ArrayList<>()).add(delivery);
      Play.check(say.attempt == 0 || delivery.attempt() == say.attempt, id + " came for attempt " + delivery.attempt());
      SaidEvent.asPublished(delivery.event(), play.published.get(id));
      var like = say.like == null ? Map.<String, String>of() : say.like.getOrDefault(id, Map.of());
      like.forEach((name, value) -> {
        var field = Event.getDescriptor().findFieldByName(name);
        Play.same("the " + name + " of " + id, delivery.event().getField(field), value);
      });
    }
    if (say.counts != null) {
      Play.same("shares", counts, say.counts);
    }
  }

  /** The next delivery to any of some subscriptions; null: there was none in time. */
  private Taken next(List<String> from, long end) throws Exception {
    while (System.nanoTime() < end) {
      for (var name : from) {
        var delivery = play.subscriptions.get(name).next(Duration.ofMillis(20)); // a little with each, in turn
        if (delivery != null) {
          return new Taken(name, delivery);
        }
      }
    }
    return null;
  }

  private void expectNoneWithin(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, None.class);
    var taken = next(List.of(say.from), System.nanoTime() + Play.duration(say.seconds).toNanos());
    Play.check(taken == null, taken == null ? "" : taken.delivery.event().getEventId() + " came");
  }
}
