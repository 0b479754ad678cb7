"""The words that the pocket model's captions are made of: what its scorer can tell apart, because it was trained to (tools/pocket/world.py)."""

from __future__ import annotations

NOUNS = tuple(
    """
monkey|dog|wolf|fox|cat|lion|tiger|horse|unicorn|zebra|cow|pig|camel|llama|giraffe|elephant|mouse|rabbit|bat|bear|koala|panda|chicken|rooster|bird|
penguin|duck|owl|flamingo|parrot|frog|turtle|snake|dragon|whale|dolphin|fish|blowfish|shark|octopus|crab|snail|butterfly|bee|ladybug|spider|rose|
sunflower|tree|palm tree|cactus|maple leaf|mushroom|grapes|watermelon|lemon|banana|pineapple|red apple|green apple|pear|cherries|strawberry|tomato|
avocado|eggplant|carrot|corn|broccoli|onion|bread|croissant|pretzel|bagel|waffle|cheese|hamburger|french fries|pizza|hot dog|sandwich|egg|popcorn|
sushi|ice cream|doughnut|cookie|birthday cake|cupcake|lollipop|teapot|wine glass|spoon|volcano|house|castle|tent|bus|fire engine|police car|taxi|car|
tractor|bicycle|traffic light|sailboat|ship|airplane|helicopter|rocket|alarm clock|moon|sun|star|cloud|rainbow|umbrella|snowflake|snowman|fire|
droplet|jack-o-lantern|christmas tree|balloon|gift|trophy|soccer ball|baseball|basketball|tennis|kite|pool 8 ball|die|puzzle piece|teddy bear|glasses|
sunglasses|necktie|t-shirt|jeans|scarf|socks|dress|handbag|backpack|running shoe|crown|top hat|ring|diamond|bell|microphone|headphones|trumpet|guitar|
violin|drum|telephone|laptop|television|camera|candle|light bulb|book|package|pencil|scissors|padlock|key|hammer|bomb|shield|gear|magnet|door|chair|
bucket|toothbrush|coin|robot|ghost|alien|skull|clown|poo|red heart|broken heart|crying face|thinking face|grinning cat|grinning cat with smiling eyes|
cat with tears of joy|smiling cat with heart-eyes|cat with wry smile|kissing cat|weary cat|crying cat|pouting cat
""".replace("\n", "").split("|")
)
STYLES = ("flat", "cartoon", "3d")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "gray", "black", "white")
