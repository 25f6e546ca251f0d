"""Words to make problems of: people, things, places, currencies. The lists are our own."""

from __future__ import annotations

PEOPLE = tuple(
    (
        "Aarav Abena Adaeze Ahmed Aiko Akua Alejandro Amina Ana Anjali Anton Arjun Aylin Bao "
        "Beatriz Bilal Brigid Camila Carlos Chidi Chloe Daniel Deepa Diego Elif Ella Emeka Eva "
        "Fatima Felix Finn Gabriel Gita Grace Hamza Hannah Haruto Hassan Hugo Ines Isla Ivan Jack "
        "Jamal Jia Jonas Jose Kaito Karim Kavya Kwame Lars Laura Layla Leo Lin Lucia Maja Malik "
        "Maria Marta Mei Mia Miguel Mina Mohamed Musa Naledi Nguyen Nia Nikhil Noah Nora Olga "
        "Oliver Oscar Pablo Pedro Petra Precious Rahul Ravi Ruth Sakura Salma Sara Selim Sipho "
        "Sofia Sunita Tariq Temba Thandi Tom Valentina Wei Yara Yuki Zainab Zara Zola"
    ).split()
)
ADULTS = (
    "Mr. Okafor",
    "Mrs. Silva",
    "Ms. Tanaka",
    "Mr. Novak",
    "Mrs. Haddad",
    "Aunt Rosa",
    "Uncle Sam",
    "Grandma",
    "Grandpa",
    "the coach",
    "a baker",
    "a farmer",
    "the shopkeeper",
    "our teacher",
    "my mum",
    "my dad",
    "the librarian",
    "a tailor",
)
THINGS = tuple(
    (
        "apples bananas mangoes lemons oranges grapes sweets biscuits cupcakes samosas dumplings "
        "pencils pens erasers rulers notebooks stickers stamps marbles beads buttons shells stones "
        "coins badges toys dolls kites balls bricks tiles bottles cups plates candles flowers "
        "roses seeds trees postcards books magazines tickets cards balloons ribbons socks caps "
        "bracelets keys magnets batteries bolts leaves feathers eggs potatoes tomatoes carrots "
        "pumpkins fish chickens ducks goats lanterns posters"
    ).split()
)
CONTAINERS = tuple(
    "boxes bags jars baskets trays crates packets cartons drawers buckets shelves rows".split()
)
CONTAINER = tuple("box bag jar basket tray crate packet carton drawer bucket".split())
PLACES = (
    "school",
    "library",
    "market",
    "park",
    "bakery",
    "farm",
    "zoo",
    "museum",
    "village hall",
    "bus station",
    "cinema",
    "swimming pool",
    "toy shop",
    "stadium",
    "hospital",
    "garden centre",
    "bookshop",
    "beach",
    "factory",
    "airport",
)
CITIES = (
    "Lagos Lima Nairobi Mumbai Delhi Hanoi Osaka Seoul Cairo Accra Lisbon Madrid Oslo Warsaw "
    "Prague Dublin Leeds Boston Denver Toronto Quito Bogota Manila Jakarta Perth Dakar Tunis"
).split()
GOODS = (
    ("a notebook", "notebooks"),
    ("a pen", "pens"),
    ("a T-shirt", "T-shirts"),
    ("a ball", "balls"),
    ("a book", "books"),
    ("a toy car", "toy cars"),
    ("a sandwich", "sandwiches"),
    ("a melon", "melons"),
    ("a cinema ticket", "cinema tickets"),
    ("a mug", "mugs"),
    ("a plant", "plants"),
    ("a chocolate bar", "chocolate bars"),
    ("a juice", "juices"),
    ("a scarf", "scarves"),
    ("a puzzle", "puzzles"),
    ("a lamp", "lamps"),
    ("a chair", "chairs"),
    ("a bus ticket", "bus tickets"),
    ("a school bag", "school bags"),
    ("a pair of socks", "pairs of socks"),
)
DEAR = (
    "a bicycle",
    "a jacket",
    "a phone",
    "a guitar",
    "a tent",
    "a sofa",
    "a pair of shoes",
    "a watch",
    "a television",
    "a game console",
    "a dress",
    "a keyboard",
    "a rug",
    "a fridge",
    "a camera",
    "a suitcase",
)
BY_WEIGHT = (
    "rice flour sugar cheese apples potatoes onions grapes lentils coffee nuts tomatoes "
    "mangoes carrots cocoa beans"
).split()
BY_VOLUME = "milk juice oil paint water petrol lemonade honey vinegar".split()
CURRENCIES = (
    ("$", ""),
    ("$", ""),
    ("£", ""),
    ("€", ""),
    ("₹", ""),
    ("Rs. ", ""),
    ("Rs ", ""),
    ("R", ""),
    ("¥", ""),
    ("KSh ", ""),
    ("GH₵", ""),
    ("A$", ""),
    ("", " dollars"),
    ("", " euros"),
    ("", " rupees"),
    ("", " pesos"),
    ("", " naira"),
    ("", " yuan"),
    ("", " dirhams"),
    ("", " zloty"),
)
CATEGORIES: dict[str, tuple[str, ...]] = {
    "fruits": tuple(
        "apple banana orange pear plum peach mango lemon kiwi grape fig melon coconut papaya "
        "pineapple apricot".split()
    ),
    "vegetables": tuple(
        "carrot onion potato cucumber cabbage pepper turnip radish leek pumpkin "
        "cauliflower beetroot aubergine".split()
    ),
    "animals": tuple(
        "dog cat rabbit cow horse goat duck hen pig donkey snail frog parrot turtle monkey lion "
        "chicken bear camel llama hamster".split()
    ),
    "musical instruments": tuple(
        "piano guitar violin flute drum trumpet cello clarinet harp trombone accordion "
        "saxophone ukulele".split()
    ),
    "pieces of furniture": tuple(
        "chair table sofa bed desk wardrobe stool bookcase cupboard armchair bench".split()
    ),
    "tools": tuple("hammer saw drill spanner screwdriver axe shovel rake chisel ladder".split()),
    "vehicles": tuple("car bus van bicycle truck scooter tractor boat taxi tram".split()),
    "clothes": tuple("shirt jacket skirt hat coat scarf jumper dress sock belt".split()),
    "kitchen things": tuple("fork spoon plate cup pan pot bowl kettle jug whisk".split()),
    "toys": tuple("doll kite ball puzzle robot yo-yo train drone car marble".split()),
    "things for school": tuple(
        "pencil ruler eraser notebook crayon marker globe stapler textbook".split()
    ),
    "objects": tuple(
        "lamp fridge toaster microwave clock oven mirror radio phone candle vase fan "
        "television pillow umbrella".split()
    ),
}
