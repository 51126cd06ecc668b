// The door to gRPC: messages become bytes here, and its errors those of this package.

import { setMaxListeners } from "node:events";
import { type Readable } from "node:stream";

import {
  create,
  fromBinary,
  toBinary,
  type DescMessage,
  type DescMethod,
  type DescService,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import { Client, Metadata, type ClientDuplexStream } from "@grpc/grpc-js";

import { asError, Code, EventBrokerError } from "./errors.js";

/** Until when a call is tried. */
export interface CallOptions {
  /** Gives the call up: it throws the signal's reason. What was sent may be done all the same. */
  signal?: AbortSignal | undefined;
  /** How long the call is tried, in ms. Default: the `patienceMs` of the client; of the generated stubs: for ever. */
  timeoutMs?: number | undefined;
}

/** Goes with every call, as `authorization: Bearer`; a function is asked each time. Over TLS or in your own network. */
export type Token = string | (() => string);

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
  /** Aborted, with an EventBrokerError, when the client is closed. */
  readonly closed: AbortSignal;
  readonly #client: Client;
  readonly #token: Token | undefined;
  readonly #life = new AbortController();
  readonly #calls = new Set<{ cancel(): void }>();

  constructor(client: Client, token: Token | undefined) {
    this.#client = client;
    this.#token = token;
    this.closed = this.#life.signal;
    setMaxListeners(0, this.closed); // all that waits listens
  }

  stub<S extends DescService>(service: S): Stub<S> {
    const calls: Record<string, unknown> = {};
    for (const method of service.methods) {
      if (method.methodKind === "unary") {
        calls[method.localName] = (request: Fields, { signal, timeoutMs }: CallOptions = {}) =>
          this.unary(method, request, timeoutMs === undefined ? Infinity : Date.now() + timeoutMs, signal);
      } else if (method.methodKind === "server_streaming") {
        calls[method.localName] = (request: Fields, { signal }: CallOptions = {}) =>
          this.#read(method, request, signal);
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
      this.#check(signal);
      const call = this.#client.makeUnaryRequest(
        path(method),
        asIs,
        from(method.output),
        bytesOf(method.input, request),
        this.#metadata(),
        { deadline },
        (error, response) => {
          this.#calls.delete(call);
          signal?.removeEventListener("abort", aborted);
          if (response) {
            resolve(response);
          } else {
            reject(this.#errorOf(error, signal));
          }
        },
      );
      const aborted = () => call.cancel();
      this.#calls.add(call);
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** Opens a stream in both directions, of which one writes bytes. Its errors are those of gRPC. */
  stream<O extends DescMessage>(method: DescMethod & { output: O }): ClientDuplexStream<Buffer, MessageShape<O>> {
    this.#check();
    const call = this.#client.makeBidiStreamRequest(path(method), asIs, from(method.output), this.#metadata());
    return this.#streaming(call);
  }

  /** Ends all calls; none can be made any more. */
  close(): void {
    this.#life.abort(new EventBrokerError(Code.FAILED_PRECONDITION, "the client is closed"));
    this.#calls.forEach((call) => call.cancel());
    this.#client.close();
  }

  #check(signal?: AbortSignal): void {
    signal?.throwIfAborted();
    this.closed.throwIfAborted();
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token) {
      metadata.set("authorization", `Bearer ${typeof this.#token === "string" ? this.#token : this.#token()}`);
    }
    return metadata;
  }

  /** Why a call failed: whoever ended it knows best. */
  #errorOf(error: unknown, signal: AbortSignal | undefined): unknown {
    return signal?.aborted ? signal.reason : this.closed.aborted ? this.closed.reason : asError(error);
  }

  #streaming<C extends Readable & { cancel(): void }>(call: C): C {
    this.#calls.add(call);
    call.on("status", () => this.#calls.delete(call));
    call.on("error", () => {}); // whoever reads is told; when nobody does any more, nobody needs to be
    return call;
  }

  async *#read(method: DescMethod, request: Fields, signal: AbortSignal | undefined): AsyncGenerator<unknown> {
    this.#check(signal);
    const call = this.#streaming(
      this.#client.makeServerStreamRequest(
        path(method),
        asIs,
        from(method.output),
        bytesOf(method.input, request),
        this.#metadata(),
      ),
    );
    const aborted = () => call.cancel();
    signal?.addEventListener("abort", aborted, { once: true });
    try {
      yield* call;
    } catch (error) {
      throw this.#errorOf(error, signal);
    } finally {
      signal?.removeEventListener("abort", aborted);
      call.cancel();
    }
  }
}

function path(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

/** Throws at once what no message can carry: within gRPC it would be an INTERNAL error, to be tried again. */
export function bytesOf<D extends DescMessage>(schema: D, message: MessageInitShape<D>): Buffer {
  const bytes = toBinary(schema, create(schema, message));
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}

function from<D extends DescMessage>(schema: D): (bytes: Buffer) => MessageShape<D> {
  // A view of the plain kind: fields of bytes are parts of what is read, and shall be no Buffers.
  return (bytes) => fromBinary(schema, new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
}
