package io.eventbroker.conformance;

import io.eventbroker.ConnectOptions;
import io.eventbroker.EventBroker;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * Runs the cases of tests/conformance against a broker, prints a line for each, and fails if one does.
 *
 * <p>EVENTBROKER_URL is the broker; EVENTBROKER_CONTROL the port of whoever can restart it, without which the cases
 * that need it are left out; EVENTBROKER_CASES the directory of the cases. Arguments choose the cases whose name
 * contains one.
 */
public final class Main {
  private static final int SIDE_BY_SIDE = 8;

  private final EventBroker broker;
  private final String control = System.getenv("EVENTBROKER_CONTROL");
  private int passed;
  private int failed;

  private Main(EventBroker broker) {
    this.broker = broker;
  }

  public static void main(String[] wanted) throws Exception {
    var here = "../../tests/conformance/cases"; // from clients/java
    var directory = System.getenv().getOrDefault("EVENTBROKER_CASES", here);
    var cases = Case.load(Path.of(directory)).stream()
        .filter(each -> wanted.length == 0 || Stream.of(wanted).anyMatch(each.name()::contains))
        .toList();
    System.out.println(cases.size() + " cases"); // Maven leaves an escape sequence at the begin of the first line
    var options = ConnectOptions.defaults().withPatience(Case.MOST);
    boolean conformant;
    try (var broker = EventBroker.connect(System.getenv("EVENTBROKER_URL"), options)) {
      conformant = new Main(broker).run(cases);
    }
    if (!conformant) {
      System.exit(1);
    }
  }

  private boolean run(List<Case> cases) throws InterruptedException {
    var disturbing = new ArrayList<Case>(); // one after the other, when nobody is disturbed
    var running = Executors.newFixedThreadPool(SIDE_BY_SIDE);
    for (var each : cases) {
      if (!each.needsControl()) {
        running.execute(() -> run(each));
      } else if (control != null) {
        disturbing.add(each);
      } else {
        say("left out", each, "");
      }
    }
    running.shutdown();
    running.awaitTermination(1, TimeUnit.HOURS); // each case has its bound
    disturbing.forEach(this::run);
    System.out.printf("%d passed, %d failed%n", passed, failed);
    return failed == 0 && passed > 0;
  }

  private void run(Case each) {
    Throwable thrown = null;
    try {
      each.run(broker, control);
    } catch (Throwable wrong) { // also an Error fails no more than its case
      thrown = wrong;
    }
    synchronized (this) {
      if (thrown == null) {
        passed++;
        say("ok", each, "");
      } else {
        failed++;
        say("FAILED", each, ": " + thrown.toString().replace('\n', ' '));
      }
    }
  }

  private static void say(String what, Case of, String more) {
    System.out.println("%-8s %s: %s%s".formatted(what, of.file(), of.name(), more));
  }
}
