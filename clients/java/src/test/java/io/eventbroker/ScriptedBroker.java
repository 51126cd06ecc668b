package io.eventbroker;

import io.eventbroker.v1.AckRequest;
import io.eventbroker.v1.AckResponse;
import io.eventbroker.v1.ConsumeRequest;
import io.eventbroker.v1.ConsumeResponse;
import io.eventbroker.v1.DeliveryBatch;
import io.eventbroker.v1.ExtendDeadlineRequest;
import io.eventbroker.v1.ExtendDeadlineResponse;
import io.eventbroker.v1.NackRequest;
import io.eventbroker.v1.NackResponse;
import io.eventbroker.v1.Opened;
import io.eventbroker.v1.PublishRequest;
import io.eventbroker.v1.PublishResponse;
import io.eventbroker.v1.PublisherServiceGrpc;
import io.eventbroker.v1.SettleOutcome;
import io.eventbroker.v1.SettleResult;
import io.eventbroker.v1.SubscribeResponse;
import io.eventbroker.v1.SubscriberServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.function.Function;

/** Answers as a test says, where a true broker can hardly be brought to; what it was asked is kept. */
final class ScriptedBroker implements AutoCloseable {
  Function<PublishRequest, PublishResponse> publish = request -> {
    throw Status.UNAVAILABLE.withDescription("away").asRuntimeException();
  };
  Function<AckRequest, SettleOutcome> ack = request -> SettleOutcome.SETTLE_OUTCOME_DONE;
  SettleOutcome extended = SettleOutcome.SETTLE_OUTCOME_DONE;
  boolean opens = true;
  Duration deadline = Duration.ofMinutes(1);
  final BlockingQueue<PublishRequest> published = new LinkedBlockingQueue<>();
  final BlockingQueue<AckRequest> acked = new LinkedBlockingQueue<>();
  final BlockingQueue<NackRequest> nacked = new LinkedBlockingQueue<>();
  final String target;
  private final Server server;

  ScriptedBroker() throws IOException {
    server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
        .addService(new Publisher())
        .addService(new Subscriber())
        .build()
        .start();
    target = "127.0.0.1:" + server.getPort();
  }

  EventBroker connect() {
    return EventBroker.connect(target);
  }

  @Override
  public void close() throws InterruptedException {
    server.shutdownNow().awaitTermination();
  }

  private static <T> void answer(StreamObserver<T> observer, T answer) {
    observer.onNext(answer);
    observer.onCompleted();
  }

  private static List<SettleResult> results(int count, SettleOutcome outcome) {
    return Collections.nCopies(count, SettleResult.newBuilder().setOutcome(outcome).build());
  }

  private final class Publisher extends PublisherServiceGrpc.PublisherServiceImplBase {
    @Override
    public void publish(PublishRequest request, StreamObserver<PublishResponse> observer) {
      published.add(request);
      try {
        answer(observer, publish.apply(request));
      } catch (RuntimeException refused) {
        observer.onError(refused);
      }
    }
  }

  private final class Subscriber extends SubscriberServiceGrpc.SubscriberServiceImplBase {
    /** Hands out one event, and drains when it is told to. */
    @Override
    public StreamObserver<ConsumeRequest> consume(StreamObserver<ConsumeResponse> observer) {
      return new StreamObserver<>() {
        @Override
        public void onNext(ConsumeRequest request) {
          if (request.hasDrain()) {
            observer.onCompleted();
            return;
          }
          if (!opens) {
            return;
          }
          var opened = Opened.newBuilder().setGroup("g").setConsumerId("c").setAckDeadline(Nack.duration(deadline));
          var one = io.eventbroker.v1.Delivery.newBuilder()
              .setEvent(Events.newEvent("acme", "user.created", "User", "u1"))
              .setAckId("a1")
              .setAttempt(1);
          say(SubscribeResponse.newBuilder().setOpened(opened));
          say(SubscribeResponse.newBuilder().setDeliveries(DeliveryBatch.newBuilder().addDeliveries(one)));
        }

        private void say(SubscribeResponse.Builder said) {
          observer.onNext(ConsumeResponse.newBuilder().setSubscription(said).build());
        }

        @Override
        public void onError(Throwable gone) {}

        @Override
        public void onCompleted() {
          observer.onCompleted();
        }
      };
    }

    @Override
    public void ack(AckRequest request, StreamObserver<AckResponse> observer) {
      acked.add(request);
      var results = results(request.getAckIdsCount(), ack.apply(request));
      answer(observer, AckResponse.newBuilder().addAllResults(results).build());
    }

    @Override
    public void nack(NackRequest request, StreamObserver<NackResponse> observer) {
      nacked.add(request);
      var results = results(request.getAckIdsCount(), SettleOutcome.SETTLE_OUTCOME_DONE);
      answer(observer, NackResponse.newBuilder().addAllResults(results).build());
    }

    @Override
    public void extendDeadline(ExtendDeadlineRequest request, StreamObserver<ExtendDeadlineResponse> observer) {
      var results = results(request.getAckIdsCount(), extended);
      answer(observer, ExtendDeadlineResponse.newBuilder().addAllResults(results).build());
    }
  }
}
