package io.eventbroker;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.common.util.concurrent.SettableFuture;
import org.junit.jupiter.api.Test;

class CallsTest {
  @Test
  void anAnswerIsTakenOnAThreadThatIsInterrupted() {
    var call = SettableFuture.<String>create();
    call.set("there");
    Thread.currentThread().interrupt();
    var answer = Calls.future(call);
    assertTrue(Thread.interrupted(), "the interrupt was swallowed");
    assertEquals("there", answer.join());
  }
}
