"""Small training conversations."""

from looper.records import Example, Message


def conversation(task, replies, weights=None):
    """An example with the given assistant turns."""
    messages = [
        Message(role="system", content="You fix bugs."),
        Message(role="user", content=f"Issue: {task} is wrong"),
    ]
    for i, reply in enumerate(replies):
        messages += [Message(role="assistant", content=reply), Message(role="user", content=f"seen {i}")]
    given = iter(weights or [1.0] * len(replies))
    loss = tuple(next(given) if m.role == "assistant" else 0.0 for m in messages)
    return Example(task=task, episode=f"episode-{task}", messages=tuple(messages), weights=loss)
