package io.eventbroker;

import io.eventbroker.v1.Event;
import io.eventbroker.v1.PublishRequest;
import io.eventbroker.v1.PublishResponse;
import io.eventbroker.v1.PublishResult;
import io.grpc.Status;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/** One publication under way. A try publishes what has no known outcome yet, with the same ids. */
final class Publishing {
  private final Calls calls;
  private final List<Event> events;
  private final PublishResult[] results;
  private PublishRequest request;
  private List<Integer> places = new ArrayList<>(); // of the events of the request

  Publishing(Calls calls, PublishRequest request) {
    this.calls = calls;
    this.events = request.getEventsList();
    this.results = new PublishResult[events.size()];
    this.request = request;
    for (int place = 0; place < results.length; place++) {
      places.add(place);
    }
  }

  CompletableFuture<List<PublishResult>> attempt(Duration bound) {
    return Calls.future(calls.publisher(bound).publish(request)).handle((response, thrown) -> {
      if (thrown == null) {
        return take(response);
      }
      var told = EventBrokerException.of(thrown);
      throw results.length > 0 && results[0] != null ? told.withResults(List.of(results)) : told;
    });
  }

  private List<PublishResult> take(PublishResponse response) {
    if (response.getResultsCount() != places.size()) {
      throw new IllegalStateException(response.getResultsCount() + " results for " + places.size() + " events");
    }
    var unknown = new ArrayList<Integer>();
    for (int number = 0; number < places.size(); number++) {
      var result = response.getResults(number);
      results[places.get(number)] = result;
      if (result.getError().getCode() == Status.Code.UNAVAILABLE.value()) {
        unknown.add(places.get(number));
      }
    }
    if (unknown.isEmpty()) {
      return List.of(results);
    }
    places = unknown;
    request = PublishRequest.newBuilder()
        .setMode(request.getMode())
        .addAllEvents(unknown.stream().map(events::get).toList())
        .build();
    throw EventBrokerException.unavailable(results[unknown.get(0)].getError().getMessage())
        .withResults(List.of(results));
  }
}
