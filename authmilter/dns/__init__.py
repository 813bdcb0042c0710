"""DNS: answers as values, and the resolvers that give them."""
