package io.eventbroker;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.time.Duration;
import java.util.function.Consumer;

/**
 * How a client connects.
 *
 * @param credentials plain text by default
 * @param patience how long a call is tried, and the first connection. Default 30 s
 * @param tryTimeout when a try that has no answer is given up, and the next one begins. Default 10 s
 * @param channel changes the channel of gRPC further, such as by an interceptor that adds a token to each call
 */
public record ConnectOptions(
    ChannelCredentials credentials,
    Duration patience,
    Duration tryTimeout,
    Consumer<ManagedChannelBuilder<?>> channel) {

  /** Plain text, and the defaults. */
  public static ConnectOptions defaults() {
    return new ConnectOptions(
        InsecureChannelCredentials.create(), Duration.ofSeconds(30), Duration.ofSeconds(10), builder -> {});
  }

  /** Encrypts the connection, and trusts the certificates that Java trusts. */
  public ConnectOptions withTls() {
    return withCredentials(TlsChannelCredentials.create());
  }

  /** Such as of a {@link TlsChannelCredentials} builder, with certificates of one's own. */
  public ConnectOptions withCredentials(ChannelCredentials credentials) {
    return new ConnectOptions(credentials, patience, tryTimeout, channel);
  }

  /** How long a call is tried, and the first connection. */
  public ConnectOptions withPatience(Duration patience) {
    return new ConnectOptions(credentials, patience, tryTimeout, channel);
  }

  /** When a try that has no answer is given up. */
  public ConnectOptions withTryTimeout(Duration tryTimeout) {
    return new ConnectOptions(credentials, patience, tryTimeout, channel);
  }

  /** Changes the channel of gRPC further. */
  public ConnectOptions withChannel(Consumer<ManagedChannelBuilder<?>> channel) {
    return new ConnectOptions(credentials, patience, tryTimeout, channel);
  }
}
