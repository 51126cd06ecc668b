// One Consume call. It brings deliveries and can be drained; settling goes by unary calls, which can be made again and
// outlive it.

import { type MessageShape } from "@bufbuild/protobuf";
import { status as Code, type ClientDuplexStream } from "@grpc/grpc-js";

import { bytesOf, type Door } from "./door.js";
import { asError, EventBrokerError } from "./errors.js";
import {
  ConsumeRequestSchema,
  SubscriberService,
  type ConsumeResponse,
  type Opened,
  type SubscribeRequestSchema,
  type SubscribeResponse,
} from "./gen/eventbroker/v1/subscriber_service_pb.js";

const OPEN_TIMEOUT_MS = 10_000;

type Call = ClientDuplexStream<Buffer, ConsumeResponse>;

export class Stream {
  /** What the broker made of the request. */
  readonly opened: Opened;
  /** Whether it is over, and with it all that it brought. */
  over = false;
  readonly #call: Call;
  readonly #messages: AsyncIterator<ConsumeResponse>;

  private constructor(call: Call, messages: AsyncIterator<ConsumeResponse>, opened: Opened) {
    this.#call = call;
    this.#messages = messages;
    this.opened = opened;
  }

  /** Opens one, or throws why not. The signal ends it, also later. */
  static async open(
    door: Door,
    request: MessageShape<typeof SubscribeRequestSchema>,
    signal: AbortSignal,
  ): Promise<Stream> {
    const open = bytesOf(ConsumeRequestSchema, { request: { case: "open", value: request } });
    const call = door.stream(SubscriberService.method.consume);
    const cancel = () => call.cancel();
    call.on("status", () => signal.removeEventListener("abort", cancel));
    signal.addEventListener("abort", cancel, { once: true });
    const late = setTimeout(cancel, OPEN_TIMEOUT_MS);
    try {
      call.write(open);
      const messages = call[Symbol.asyncIterator]() as AsyncIterator<ConsumeResponse>;
      const first = await messages.next();
      const said = first.done ? undefined : subscriptionOf(first.value)?.response;
      if (said?.case !== "opened") {
        cancel();
        throw new EventBrokerError(Code.UNAVAILABLE, "the stream ended before it was open");
      }
      return new Stream(call, messages, said.value);
    } catch (error) {
      throw asError(error, "open.");
    } finally {
      clearTimeout(late);
    }
  }

  /** What the broker says, until it ends the stream; throws if it breaks. */
  async *read(): AsyncGenerator<SubscribeResponse["response"]> {
    try {
      for (;;) {
        const next = await this.#messages.next();
        if (next.done) {
          return;
        }
        const said = subscriptionOf(next.value);
        if (said) {
          yield said.response;
        }
      }
    } catch (error) {
      throw asError(error, "open.");
    }
  }

  drain(): void {
    // If it fails the stream is broken, which its reader hears.
    this.#call.write(bytesOf(ConsumeRequestSchema, { request: { case: "drain", value: {} } }));
  }

  end(): void {
    this.over = true;
    this.#call.cancel();
  }
}

function subscriptionOf({ response }: ConsumeResponse): SubscribeResponse | undefined {
  return response.case === "subscription" ? response.value : undefined;
}
