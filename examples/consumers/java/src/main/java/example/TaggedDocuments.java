package example;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.networknt.schema.JsonSchema;
import com.networknt.schema.JsonSchemaFactory;
import com.networknt.schema.SpecVersion;
import com.networknt.schema.ValidationMessage;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Prints what el4ner says of each document, one JSON object a line. Arguments: BOOTSTRAP TOPIC SCHEMAS [COUNT].
 */
public final class TaggedDocuments {
  private static final ObjectMapper JSON = new ObjectMapper();

  public static void main(String[] arguments) throws IOException {
    Map<String, Object> settings = Map.of(
        ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
        ConsumerConfig.GROUP_ID_CONFIG, "el4ner-example-java",
        ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
        // Outcomes are written in transactions: what was never committed is nobody's outcome.
        ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
        // Offsets are committed when messages have been dealt with, so that a crash loses none.
        ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
    JsonSchema schema = schema(Path.of(arguments[2]));
    long left = arguments.length > 3 ? Long.parseLong(arguments[3]) : Long.MAX_VALUE;
    PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    try (KafkaConsumer<String, byte[]> consumer =
        new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer())) {
      consumer.subscribe(List.of(arguments[1]));
      while (left > 0) {
        for (ConsumerRecord<String, byte[]> message : consumer.poll(Duration.ofMillis(500))) {
          out.println(outcome(message.key(), message.value(), schema));
          TopicPartition partition = new TopicPartition(message.topic(), message.partition());
          consumer.commitSync(Map.of(partition, new OffsetAndMetadata(message.offset() + 1)));
          if (--left == 0) {
            break;
          }
        }
      }
    }
  }

  private static JsonSchema schema(Path folder) throws IOException {
    JsonNode common = JSON.readTree(folder.resolve("common.v1.json").toFile());
    JsonSchemaFactory factory = JsonSchemaFactory.getInstance(
        SpecVersion.VersionFlag.V202012,
        builder -> builder.schemaLoaders(
            loaders -> loaders.schemas(Map.of(common.get("$id").asText(), common.toString()))));
    return factory.getSchema(Files.readString(folder.resolve("tagged-documents.v1.json")));
  }

  private static JsonNode outcome(String key, byte[] value, JsonSchema schema) throws IOException {
    ObjectNode outcome = JSON.createObjectNode();
    if (value == null) {
      return outcome.put("document", key).put("deleted", true);
    }
    JsonNode document = JSON.readTree(value);
    Set<ValidationMessage> wrong = schema.validate(document);
    if (!wrong.isEmpty()) {
      throw new IllegalStateException(key + ": " + wrong);
    }
    outcome.put("document", document.get("id").asText()).put("status", document.get("status").asText());
    ArrayNode entities = outcome.putArray("entities");
    String text = document.get("text").asText();
    for (JsonNode entity : document.get("entities")) {
      // Offsets count code points. Java's strings count UTF-16, in which an emoji is two.
      int start = text.offsetByCodePoints(0, entity.get("start").asInt());
      int end = text.offsetByCodePoints(0, entity.get("end").asInt());
      if (!text.substring(start, end).equals(entity.get("text").asText())) {
        throw new IllegalStateException(key + ": the text at an entity's offsets is not the entity's");
      }
      entities.add(entity.get("text").asText() + "|" + entity.get("type").asText());
    }
    return outcome;
  }
}
