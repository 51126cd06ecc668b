// A server that answers as a test says, where a true broker can hardly be brought to; what it was asked is kept.

import { EventEmitter, once } from "node:events";
import { type TestContext } from "node:test";
import { promisify } from "node:util";

import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescService,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import {
  Server,
  ServerCredentials,
  type Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServiceDefinition,
  type sendUnaryData,
} from "@grpc/grpc-js";
import { connect, newEvent, json, SettleOutcome, type Client, type ConnectOptions } from "@eventbroker/client";
import {
  GroupService,
  PublisherService,
  SubscriberService,
  type AckRequest,
  type ConsumeRequest,
  type ConsumeResponseSchema,
  type ExtendDeadlineRequest,
  type NackRequest,
  type PublishRequest,
  type PublishResponseSchema,
} from "@eventbroker/client/v1";

type Published = MessageInitShape<typeof PublishResponseSchema>;

export class Answers {
  publish: (request: PublishRequest, metadata: Metadata) => Published | Promise<Published> = () => ({});
  ack: (request: AckRequest) => unknown = () => {};
  extend: (request: ExtendDeadlineRequest) => SettleOutcome = () => SettleOutcome.DONE;
  deadlineSeconds = 60n;
  /** How many streams have been opened. So many break when they have handed out their event. */
  streams = 0;
  breaking = 0;

  readonly published: PublishRequest[] = [];
  readonly acked: AckRequest[] = [];
  readonly nacked: NackRequest[] = [];
  readonly told = new EventEmitter<{ nacked: [NackRequest]; acked: [AckRequest]; again: []; waiting: [] }>();

  readonly #server = new Server();

  /** Serves on a port of its own until the test is over. */
  async serve(test: TestContext): Promise<string> {
    const server = this.#server;
    server.addService(definition(PublisherService), {
      Publish: unary(async (request: PublishRequest, metadata) => {
        this.published.push(request);
        return this.publish(request, metadata);
      }),
    });
    server.addService(definition(SubscriberService), {
      Consume: (stream: Stream) => this.#consume(stream),
      Ack: unary(async (request: AckRequest) => {
        this.acked.push(request);
        this.told.emit("acked", request);
        await this.ack(request);
        return results(request.ackIds, SettleOutcome.DONE);
      }),
      Nack: unary(async (request: NackRequest) => {
        this.nacked.push(request);
        this.told.emit("nacked", request);
        return results(request.ackIds, SettleOutcome.DONE);
      }),
      ExtendDeadline: unary(async (request: ExtendDeadlineRequest) => results(request.ackIds, this.extend(request))),
    });
    server.addService(definition(GroupService), { WaitForGroup: () => this.told.emit("waiting") }); // and no answer
    const port = await promisify(server.bindAsync.bind(server))("127.0.0.1:0", ServerCredentials.createInsecure());
    test.after(() => this.end());
    return `127.0.0.1:${port}`;
  }

  /** Breaks all connections, and takes no new ones. */
  end(): void {
    this.#server.forceShutdown();
  }

  /** Hands out one event, and ends when it is told to drain. */
  #consume(stream: Stream): void {
    const number = ++this.streams;
    if (number > 1) {
      this.told.emit("again");
    }
    stream
      .on("error", () => {})
      .on("data", ({ request }: ConsumeRequest) => {
        if (request.case === "drain") {
          stream.end();
          return;
        }
        const event = newEvent({
          eventType: "user.created",
          aggregateType: "User",
          aggregateId: "u1",
          data: json("{}"),
        });
        const deliveries = [{ event, ackId: `a${number}`, attempt: 1 }];
        const opened = {
          group: "g",
          consumerId: "c",
          ackDeadline: { seconds: this.deadlineSeconds },
          flowControl: { maxUnsettledEvents: 10 },
        };
        stream.write({ response: { case: "subscription", value: { response: { case: "opened", value: opened } } } });
        const ackDeadline = { seconds: 1_800_000_000n };
        const batch = { deliveries, ackDeadline };
        stream.write({ response: { case: "subscription", value: { response: { case: "deliveries", value: batch } } } });
        if (number <= this.breaking) {
          stream.emit("error", { code: 14, details: "broken" });
        }
      });
  }
}

/** A client of such a server. */
export async function connected(test: TestContext, answers: Answers, options: ConnectOptions = {}): Promise<Client> {
  const client = await connect(await answers.serve(test), { tenant: "acme", ...options });
  test.after(() => client.close());
  return client;
}

export async function nextNack(answers: Answers): Promise<NackRequest> {
  const [nacked] = answers.nacked.length > 0 ? answers.nacked : ((await once(answers.told, "nacked")) as [NackRequest]);
  return nacked!;
}

type Stream = ServerDuplexStream<ConsumeRequest, MessageInitShape<typeof ConsumeResponseSchema>>;

function results(ackIds: string[], outcome: SettleOutcome) {
  return { results: ackIds.map((ackId) => ({ ackId, outcome })) };
}

function unary<I, O>(answer: (request: I, metadata: Metadata) => Promise<O>) {
  return ({ request, metadata }: ServerUnaryCall<I, O>, callback: sendUnaryData<O>): void => {
    answer(request, metadata).then(
      (said) => callback(null, said),
      (error) => callback(error),
    );
  };
}

function definition(service: DescService): ServiceDefinition {
  const from = (schema: DescMessage) => (bytes: Buffer) => fromBinary(schema, bytes);
  const to = (schema: DescMessage) => (said: Record<string, unknown>) =>
    Buffer.from(toBinary(schema, create(schema, said)));
  return Object.fromEntries(
    service.methods.map((method) => [
      method.name,
      {
        path: `/${service.typeName}/${method.name}`,
        requestStream: method.methodKind === "bidi_streaming",
        responseStream: method.methodKind === "bidi_streaming" || method.methodKind === "server_streaming",
        requestSerialize: to(method.input),
        requestDeserialize: from(method.input),
        responseSerialize: to(method.output),
        responseDeserialize: from(method.output),
      },
    ]),
  );
}
