// Prints what el4ner says of each document, one JSON object a line.
//
//     node tagged-documents.js BOOTSTRAP TOPIC SCHEMAS [COUNT]

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import Ajv from "ajv/dist/2020.js";
import { Kafka, logLevel } from "kafkajs";

const [bootstrap, topic, schemas, count] = process.argv.slice(2);
let left = count === undefined ? Infinity : Number(count);

// strict: false, since the schemas have annotations of their own ("x-open").
const ajv = new Ajv({ strict: false, validateFormats: false });
const read = async (name) => JSON.parse(await readFile(join(schemas, `${name}.v1.json`), "utf8"));
ajv.addSchema(await read("common"));
const valid = ajv.compile(await read("tagged-documents"));

const kafka = new Kafka({ brokers: bootstrap.split(","), logLevel: logLevel.ERROR });
// Outcomes are written in transactions: what was never committed is nobody's outcome.
const consumer = kafka.consumer({ groupId: "el4ner-example-javascript", readUncommitted: false });

function outcome(key, value) {
  if (value === null) {
    return { document: key, deleted: true };
  }
  const document = JSON.parse(value.toString());
  if (!valid(document)) {
    throw new Error(`${key}: ${ajv.errorsText(valid.errors)}`);
  }
  // Offsets count code points. JavaScript's strings count UTF-16, in which an emoji is two.
  const points = Array.from(document.text ?? "");
  const entities = document.entities.map(({ start, end, text, type }) => {
    if (points.slice(start, end).join("") !== text) {
      throw new Error(`${key}: the text at an entity's offsets is not the entity's`);
    }
    return `${text}|${type}`;
  });
  return { document: document.id, status: document.status, entities };
}

await consumer.connect();
await consumer.subscribe({ topics: [topic], fromBeginning: true });
await new Promise((done, failed) => {
  consumer.on(consumer.events.CRASH, ({ payload }) => failed(payload.error));
  consumer.run({
    // Offsets are committed when messages have been dealt with, so that a crash loses none.
    autoCommit: false,
    eachMessage: async ({ partition, message }) => {
      if (left <= 0) {
        return;
      }
      console.log(JSON.stringify(outcome(message.key.toString(), message.value)));
      await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
      left -= 1;
      if (left === 0) {
        done();
      }
    },
  });
});
await consumer.disconnect();
