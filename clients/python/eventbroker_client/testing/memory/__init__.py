"""An imitation of the broker, in memory: the contract as far as the SDK and the conformance cases use it."""
