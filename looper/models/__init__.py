"""Language models that answer chats: the bundled one, served ones, and recordings."""
