package io.eventbroker;

import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.ListenableFuture;
import io.eventbroker.v1.PublisherServiceGrpc;
import io.eventbroker.v1.PublisherServiceGrpc.PublisherServiceFutureStub;
import io.eventbroker.v1.SubscriberServiceGrpc;
import io.eventbroker.v1.SubscriberServiceGrpc.SubscriberServiceFutureStub;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;

/** Makes calls, again until they succeed, fail for good, or their time is over. Each try has its own bound. */
final class Calls {
  final ManagedChannel channel;
  private final ScheduledExecutorService timer;
  private final ConnectOptions options;
  private final Set<Repeated<?>> waiting = ConcurrentHashMap.newKeySet(); // for their next try

  Calls(ManagedChannel channel, ConnectOptions options) {
    this.channel = channel;
    this.options = options;
    timer = Executors.newSingleThreadScheduledExecutor(run -> {
      var thread = new Thread(run, "eventbroker-timer");
      thread.setDaemon(true);
      return thread;
    });
  }

  /** There are no more tries; those that wait for one fail by what failed last. */
  void close() {
    timer.shutdownNow();
    waiting.forEach(Repeated::giveUp);
  }

  PublisherServiceFutureStub publisher(Duration bound) {
    return PublisherServiceGrpc.newFutureStub(channel).withDeadlineAfter(bound.toNanos(), TimeUnit.NANOSECONDS);
  }

  SubscriberServiceFutureStub subscriber(Duration bound) {
    return SubscriberServiceGrpc.newFutureStub(channel).withDeadlineAfter(bound.toNanos(), TimeUnit.NANOSECONDS);
  }

  /** Tries until the deadline of the present {@link Context}, or else for the patience of the options. */
  <T> CompletableFuture<T> repeat(Function<Duration, CompletableFuture<T>> call) {
    var deadline = Context.current().getDeadline();
    return repeat(
        deadline == null ? options.patience() : Duration.ofNanos(deadline.timeRemaining(TimeUnit.NANOSECONDS)), call);
  }

  /** The call gets its bound. */
  <T> CompletableFuture<T> repeat(Duration patience, Function<Duration, CompletableFuture<T>> call) {
    var repeated = new Repeated<T>(call, System.nanoTime() + patience.toNanos());
    repeated.attempt(1);
    return repeated.result;
  }

  private final class Repeated<T> {
    final CompletableFuture<T> result = new CompletableFuture<>();
    private final Context context = Context.current(); // of the caller, whose tries they are
    private final Function<Duration, CompletableFuture<T>> call;
    private final long end;
    private volatile Throwable last;
    private volatile boolean unknown; // whether a try may have done its work

    Repeated(Function<Duration, CompletableFuture<T>> call, long end) {
      this.call = call;
      this.end = end;
    }

    void attempt(int n) {
      waiting.remove(this);
      if (result.isDone()) { // somebody cancelled it
        return;
      }
      var remaining = Duration.ofNanos(Math.max(end - System.nanoTime(), 0));
      var bound = remaining.compareTo(options.tryTimeout()) < 0 ? remaining : options.tryTimeout();
      context.run(() -> call.apply(bound).whenComplete((answer, thrown) -> {
        if (thrown == null) {
          result.complete(answer);
        } else {
          failed(n, translated(thrown));
        }
      }));
    }

    private void failed(int n, Throwable thrown) {
      last = unknown && thrown instanceof EventBrokerException refused ? refused.afterUnknown() : thrown;
      unknown |= !(thrown instanceof EventBrokerException refused && refused.isDefinite());
      if (thrown instanceof EventBrokerException told && told.isRetryable() && !context.isCancelled()) {
        var wait = Backoff.before(n, told.retryAfter());
        waiting.add(this); // first, so close() finds it
        if (wait.toNanos() < end - System.nanoTime() && after(wait, () -> {
          channel.resetConnectBackoff(); // gRPC alone would wait longer for the connection than we do
          attempt(n + 1);
        }) != null) {
          return;
        }
      }
      giveUp();
    }

    void giveUp() {
      waiting.remove(this);
      result.completeExceptionally(last);
    }
  }

  /** Runs it later; null: the client is closed. */
  ScheduledFuture<?> after(Duration wait, Runnable run) {
    try {
      return timer.schedule(run, wait.toNanos(), TimeUnit.NANOSECONDS);
    } catch (RejectedExecutionException closed) {
      return null;
    }
  }

  ScheduledFuture<?> every(Duration period, Runnable run) {
    return timer.scheduleAtFixedRate(run, period.toNanos(), period.toNanos(), TimeUnit.NANOSECONDS);
  }

  /** What a generated stub answers, as a future of Java. */
  static <T> CompletableFuture<T> future(ListenableFuture<T> call) {
    var result = new CompletableFuture<T>();
    call.addListener(() -> {
      try {
        result.complete(Futures.getDone(call)); // get() would fail on a thread that is interrupted
      } catch (ExecutionException failed) {
        result.completeExceptionally(translated(failed));
      } catch (RuntimeException failed) {
        result.completeExceptionally(failed);
      }
    }, Runnable::run);
    return result;
  }

  private static Throwable translated(Throwable thrown) {
    if ((thrown instanceof CompletionException || thrown instanceof ExecutionException) && thrown.getCause() != null) {
      return translated(thrown.getCause());
    }
    return thrown instanceof StatusRuntimeException ? EventBrokerException.of(thrown) : thrown;
  }
}
