"""A passage of plain prose that comes with llmctl, so that a first curve needs no file.

Written for this purpose; excerpts of it are states, and the tokens that follow them are true next tokens.
"""

PASSAGE = """\
A lighthouse is a tower with a bright lamp at its top. Long before there were maps worth trusting, sailors \
steered by the fires that people lit on cliffs, and the tower only lifted the fire higher. The first lamps \
burned wood, then coal, then oil, and each change made the light steadier and the work of the keeper a \
little easier. Around 1820 a French engineer found that a ring of glass prisms could bend the rays of a \
small flame into one flat beam, and that such a beam could be seen from more than thirty kilometres away. \
Every lighthouse was given a pattern of its own, so that a captain who counted the seconds between two \
flashes knew which coast lay before him.

Bees keep house in a different way. A hive of forty thousand workers has no plan and no foreman, and yet \
its combs hang straight and its stores last through the winter. When a bee finds a field of clover, she \
flies home and dances on the comb. The angle of her dance gives the direction of the field against the \
sun, and the length of each run tells how far the others have to fly. Those who follow her carry the scent \
of the flowers on their bodies, and before an hour has passed a hundred of them may be at work.

Paper was made in China for many centuries before it was known in Europe. Old rags, bark and fishing nets \
were soaked in water and beaten to a pulp, and a thin layer of that pulp was lifted out on a screen, pressed \
and left to dry. The art moved slowly along the roads of trade. By the year 1150 there were mills in Spain, \
and in the thirteenth century Italian makers learned to drive the hammers with a water wheel. Cheap paper \
came first, and cheap books came after it: without sheets that anyone could afford, the printing press would \
have had little to print on.

A glacier is a river of ice that flows downhill under its own weight. Snow falls on the high ground year \
after year, the lower layers are pressed together, and the air between the flakes is squeezed out until \
only blue ice remains. In the middle of the valley the ice moves faster than at its sides, because the \
rock walls hold it back. Stones that fall on its surface are carried along and dropped where the ice melts, \
and the long heaps that they form show where the glacier ended in colder times.

The violin has four strings and no frets. A player must find every note by ear and by habit, and a finger \
that is off by the width of a hair is heard at the back of the hall. The bow is strung with horsehair and \
rubbed with resin, so that it grips the string, pulls it aside, lets it slip and grips it again several \
hundred times in a second. The thin wooden body takes up this trembling and passes it on to the air. Nobody \
has ever explained to the satisfaction of everyone else why some old instruments sound better than new \
ones, and in blind tests most listeners can not tell them apart.

Before there were refrigerators, ice was cut from frozen lakes with saws and stored in houses with thick \
walls filled with sawdust. Horses drew the blocks to the harbour, and ships took them as far as India. Half \
of the cargo might melt on the way, but what was left sold at such a price that the trade made fortunes. \
It ended within a few years, when machines learned to make ice wherever it was wanted.

A desert is not always hot. What makes a desert is that little rain falls there, and by that measure the \
largest one on Earth lies around the South Pole. In hot deserts the nights are cold, because dry air holds \
little of the warmth of the day. Plants that live there store water in thick stems, cover themselves with \
wax, or sleep as seeds for years until it rains. After a single storm the ground may turn green and then \
yellow with flowers, and within a few weeks it is brown again.

Clocks were once set by the sun, and every town had its own noon. That did no harm as long as nobody \
travelled faster than a horse. When railways came, a difference of ten minutes between two stations was \
enough to make trains collide, and so the companies agreed on one time for the whole line. A few decades \
later the world was divided into zones, and the observatory at Greenwich was chosen as the place from which \
they are counted. Today the second is measured by atoms, and the Earth itself, which turns a little more \
slowly every century, has to be corrected against them.
"""
