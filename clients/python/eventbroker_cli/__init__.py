"""The command line tools of eventbroker, which know the broker by its protobuf contract and through the SDK only."""
