package io.eventbroker;

import io.grpc.ConnectivityState;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

/** Makes the channel of a client. */
final class Connecting {
  private static final int MOST_OF_ANSWER = 64 << 20; // bytes; reads bring 4 MiB of data, and what is around it

  private Connecting() {}

  /** A channel that is connected. */
  static ManagedChannel channel(String target, ConnectOptions options) {
    // The server takes pings every 10 s. A peer that is gone without a word is noticed within 30 s.
    var builder = Grpc.newChannelBuilder(target, options.credentials())
        .keepAliveTime(20, TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .maxInboundMessageSize(MOST_OF_ANSWER);
    options.channel().accept(builder);
    var channel = builder.build();
    try {
      ready(channel, options.patience(), target);
    } catch (RuntimeException failed) {
      channel.shutdownNow();
      throw failed;
    }
    return channel;
  }

  private static void ready(ManagedChannel channel, Duration patience, String target) {
    long end = System.nanoTime() + patience.toNanos();
    for (int n = 1; ; n++) {
      var state = channel.getState(true);
      if (state == ConnectivityState.READY) {
        return;
      }
      var changed = new CountDownLatch(1);
      channel.notifyWhenStateChanged(state, changed::countDown);
      try {
        long wait = Math.min(Backoff.before(n, Duration.ZERO).toNanos(), end - System.nanoTime());
        if (!changed.await(wait, TimeUnit.NANOSECONDS) && state == ConnectivityState.TRANSIENT_FAILURE) {
          channel.resetConnectBackoff();
        }
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw EventBrokerException.unavailable("interrupted while connecting to " + target);
      }
      if (System.nanoTime() >= end) {
        throw EventBrokerException.unavailable("no answer from " + target);
      }
    }
  }
}
