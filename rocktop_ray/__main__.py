"""``python -m rocktop_ray`` is ``rocktop``."""

from rocktop_ray.cli import main

main()
