"""The door for people: pages that work without JavaScript, without the database and on a phone at 3 am."""

from controller.web.routes import Pages

__all__ = ["Pages"]
