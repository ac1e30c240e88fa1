"""`rampart demo`: one good release that completes and one bad one that is killed, all on this machine."""

from controller.demo.show import run

__all__ = ["run"]
