package io.eventbroker;

import java.time.Duration;
import java.util.concurrent.ThreadLocalRandom;

/** How long to wait before a try, with full jitter: whoever failed together does not come back together. */
final class Backoff {
  static final Duration FIRST = Duration.ofMillis(100);
  static final Duration MOST = Duration.ofSeconds(10);

  private Backoff() {}

  /** The wait before try number n (1, 2, ...), at least the time that the broker asked for. */
  static Duration before(int n, Duration atLeast) {
    long most = n > 7 ? MOST.toMillis() : Math.min(MOST.toMillis(), FIRST.toMillis() << (n - 1));
    return atLeast.plusMillis(ThreadLocalRandom.current().nextLong(most));
  }
}
