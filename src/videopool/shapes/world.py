"""Constants of the synthetic benchmark: what can be drawn, and the words for it."""

IMAGE_SIZE = 96  # pixels, square
CLIP_FRAMES = 32
CLIP_FPS = 8
MAX_OBJECTS = 4

SHAPES = ("circle", "square", "triangle", "star", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (50, 210, 70),
    "blue": (60, 100, 250),
    "yellow": (240, 220, 50),
    "purple": (190, 60, 210),
    "white": (245, 245, 245),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "grass": (38, 84, 40),
    "sand": (150, 122, 84),
    "water": (36, 58, 104),
    "night": (24, 22, 30),
}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

# Tasks that one frame can answer, and tasks that need several frames.
IMAGE_TASKS = (
    "existence", "object_count", "attribute_colour", "attribute_shape", "attribute_count", "scene",
    "location_horizontal", "location_vertical", "relation_horizontal", "relation_vertical",
)  # fmt: skip
TIME_TASKS = (
    "moving_direction", "moving_count", "moving_object", "event_order", "event_count", "state_change", "scene_change",
)  # fmt: skip
TASKS = IMAGE_TASKS + TIME_TASKS
# Clips with few objects and long motions, one event after another, for what a small model can learn about time.
EVENT_TASKS = (
    "existence", "attribute_colour", "attribute_shape", "scene", "location_horizontal", "location_vertical",
    "moving_direction", "appearance_order", "scene_change",
)  # fmt: skip
TASKS_OF = {"clips": TASKS, "images": IMAGE_TASKS, "events": EVENT_TASKS}  # by kind of split
