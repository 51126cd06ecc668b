package io.eventbroker.conformance;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Socket;
import java.util.Map;

/** Asks whoever holds the broker to do something to it: one line, answered with "ok". */
final class Control {
  private final Play play;
  private final String port;

  private record Say(String say, String event, String delivery) {}

  Control(Play play, String port) {
    this.play = play;
    this.port = port;
  }

  void verbs(Map<String, Play.Verb> verbs) {
    verbs.put("control", this::ask);
  }

  private void ask(JsonNode arguments) throws Exception {
    var say = Case.read(arguments, Say.class);
    var line = say.say;
    if (say.event != null) {
      line += " " + say.event;
    }
    if (say.delivery != null) {
      line += " " + play.delivery(say.delivery).ackId();
    }
    try (var socket = new Socket("127.0.0.1", Integer.parseInt(port))) {
      socket.setSoTimeout((int) Case.MOST.toMillis());
      socket.getOutputStream().write((line + "\n").getBytes(UTF_8));
      var answer = new BufferedReader(new InputStreamReader(socket.getInputStream(), UTF_8)).readLine();
      Play.check("ok".equals(answer), "control answers " + answer);
    }
  }
}
