package io.eventbroker.conformance;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.eventbroker.EventBroker;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * One behaviour, as steps.
 *
 * @param file without its suffix
 * @param steps of one verb each
 */
record Case(String file, String name, boolean needsControl, List<Map<String, JsonNode>> steps) {
  static final Duration MOST = Duration.ofSeconds(120); // that one may take

  /** Strict, as Jackson is: a field that this runner does not know is a step that it would not take. */
  private static final ObjectMapper JSON =
      JsonMapper.builder().propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE).build();

  private record Text(String name, String description, boolean needsControl, List<Map<String, JsonNode>> steps) {}

  static List<Case> load(Path directory) throws IOException {
    var cases = new ArrayList<Case>();
    try (var files = Files.newDirectoryStream(directory, "*.json")) {
      for (var path : files) {
        var file = path.getFileName().toString().replace(".json", "");
        for (var each : JSON.readValue(path.toFile(), new TypeReference<List<Text>>() {})) {
          cases.add(new Case(file, each.name, each.needsControl, each.steps));
        }
      }
    }
    return cases;
  }

  /** What the arguments of a verb say. */
  static <T> T read(JsonNode arguments, Class<T> as) {
    try {
      return JSON.treeToValue(arguments, as);
    } catch (IOException unknown) {
      throw new AssertionError(unknown.getMessage(), unknown);
    }
  }

  /** Takes the steps in a tenant of its own. */
  void run(EventBroker broker, String control) {
    try (var play = new Play(broker, control)) {
      for (int number = 1; number <= steps.size(); number++) {
        for (var step : steps.get(number - 1).entrySet()) {
          try {
            play.act(step.getKey(), step.getValue());
          } catch (Exception | AssertionError wrong) {
            throw new AssertionError("step " + number + ", " + step.getKey() + ": " + wrong, wrong);
          }
        }
      }
    }
  }
}
