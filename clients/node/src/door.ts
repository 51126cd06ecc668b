// The door to gRPC: messages become bytes here, and its errors those of this package.

import {
  create, fromBinary, toBinary, type DescMessage, type DescMethod, type DescService, type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client, Metadata, type ClientDuplexStream, type ClientReadableStream } from "@grpc/grpc-js";

import { asError, Code, EventBrokerError } from "./errors.js";

/** Until when a call is tried. */
export interface CallOptions {
  /** Gives the call up: it throws the signal's reason. What was sent may be done all the same. */
  signal?: AbortSignal | undefined;
  /** How long the call is tried, in ms. Default: the `patienceMs` of the client; of the generated stubs: for ever. */
  timeoutMs?: number | undefined;
}

type Fields = Record<string, unknown>;
type Methods<S extends DescService> = S["method"];

/** The calls of a service, as generated: nothing is tried again. Errors are EventBrokerErrors. */
export type Stub<S extends DescService> = {
  [M in keyof Methods<S> as Methods<S>[M]["methodKind"] extends "unary" ? M : never]: (
    request: MessageInitShape<Methods<S>[M]["input"]>,
    options?: CallOptions,
  ) => Promise<MessageShape<Methods<S>[M]["output"]>>;
} & {
  [M in keyof Methods<S> as Methods<S>[M]["methodKind"] extends "server_streaming" ? M : never]: (
    request: MessageInitShape<Methods<S>[M]["input"]>,
    options?: Pick<CallOptions, "signal">,
  ) => AsyncIterable<MessageShape<Methods<S>[M]["output"]>>;
};

export class Door {
  readonly #client: Client;
  readonly #metadata: Metadata;
  readonly #streams = new Set<{ cancel(): void }>();
  #closed = false;

  constructor(client: Client, token: string | undefined) {
    this.#client = client;
    this.#metadata = new Metadata();
    if (token) {
      this.#metadata.set("authorization", `Bearer ${token}`);
    }
  }

  stub<S extends DescService>(service: S): Stub<S> {
    const calls: Record<string, unknown> = {};
    for (const method of service.methods) {
      if (method.methodKind === "unary") {
        calls[method.localName] = (request: Fields, { signal, timeoutMs }: CallOptions = {}) =>
          this.unary(method, request, timeoutMs === undefined ? Infinity : Date.now() + timeoutMs, signal);
      } else if (method.methodKind === "server_streaming") {
        calls[method.localName] = (request: Fields, { signal }: CallOptions = {}) => this.#read(method, request, signal);
      }
    }
    return calls as Stub<S>;
  }

  /** Calls once. `deadline` is a time of Date.now(). */
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageInitShape<I>,
    deadline: number,
    signal?: AbortSignal,
  ): Promise<MessageShape<O>> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.#check();
      const call = this.#client.makeUnaryRequest(
        path(method), bytesOf(method.input), from(method.output), create(method.input, request), this.#metadata, { deadline },
        (error, response) => {
          signal?.removeEventListener("abort", aborted);
          if (error || !response) {
            reject(signal?.aborted ? signal.reason : asError(error));
          } else {
            resolve(response);
          }
        },
      );
      const aborted = () => call.cancel();
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** Opens a stream in both directions. Its errors are those of gRPC. */
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
  ): ClientDuplexStream<MessageShape<I>, MessageShape<O>> {
    this.#check();
    const call = this.#client.makeBidiStreamRequest(
      path(method), bytesOf(method.input), from(method.output), this.#metadata,
    );
    this.#streams.add(call);
    call.on("status", () => this.#streams.delete(call));
    return call;
  }

  /** Ends all streams; no call can be made any more. */
  close(): void {
    this.#closed = true;
    this.#streams.forEach((call) => call.cancel());
    this.#client.close();
  }

  #check(): void {
    if (this.#closed) {
      throw new EventBrokerError(Code.FAILED_PRECONDITION, "the client is closed");
    }
  }

  async *#read(method: DescMethod, request: Fields, signal: AbortSignal | undefined): AsyncGenerator<unknown> {
    signal?.throwIfAborted();
    this.#check();
    const call: ClientReadableStream<unknown> = this.#client.makeServerStreamRequest(
      path(method), bytesOf(method.input), from(method.output), create(method.input, request), this.#metadata,
    );
    const aborted = () => call.cancel();
    signal?.addEventListener("abort", aborted, { once: true });
    try {
      yield* call;
    } catch (error) {
      signal?.throwIfAborted();
      throw asError(error);
    } finally {
      signal?.removeEventListener("abort", aborted);
      call.cancel();
    }
  }
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function bytesOf<D extends DescMessage>(schema: D): (message: MessageShape<D>) => Buffer {
  return (message) => {
    const bytes = toBinary(schema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
}

function from<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  // A view of the plain kind: fields of bytes are parts of what is read, and shall be no Buffers.
  return (bytes) => fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}
