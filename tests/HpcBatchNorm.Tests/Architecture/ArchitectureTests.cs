using System.Text;

namespace HpcBatchNorm.Tests.Architecture
{
    /// <summary>The house stands as docs/architecture.md draws it: references point downwards only, between assemblies and between namespaces.</summary>
    public sealed class ArchitectureTests(ITestOutputHelper output)
    {
        /// <summary>What each assembly may reference of ours: the drawing.</summary>
        private static readonly Dictionary<string, string[]> Drawn = new(StringComparer.Ordinal)
        {
            ["HpcBatchNorm.Interop"] = [],
            ["HpcBatchNorm.Interop.Skia"] = [],
            ["HpcBatchNorm"] = ["HpcBatchNorm.Interop"],
            ["HpcBatchNorm.Models"] = ["HpcBatchNorm"],
            ["HpcBatchNorm.Interchange"] = ["HpcBatchNorm", "HpcBatchNorm.Interop"],
            ["HpcBatchNorm.Data"] = ["HpcBatchNorm", "HpcBatchNorm.Interop", "HpcBatchNorm.Interop.Skia"],
            ["HpcBatchNorm.Training"] = ["HpcBatchNorm", "HpcBatchNorm.Models", "HpcBatchNorm.Interchange", "HpcBatchNorm.Data", "HpcBatchNorm.Interop"],
            ["HpcBatchNorm.Reporting"] = ["HpcBatchNorm.Training", "HpcBatchNorm", "HpcBatchNorm.Data", "HpcBatchNorm.Interchange", "HpcBatchNorm.Interop"],
            ["HpcBatchNorm.Verification"] = ["HpcBatchNorm", "HpcBatchNorm.Models"],
            ["HpcBatchNorm.Experiments"] =
                ["HpcBatchNorm.Training", "HpcBatchNorm.Reporting", "HpcBatchNorm", "HpcBatchNorm.Models", "HpcBatchNorm.Interchange", "HpcBatchNorm.Data", "HpcBatchNorm.Interop"],
        };

        /// <summary>What only the assemblies named here may use of other people's: the engine pulls in nothing heavy.</summary>
        private static readonly Dictionary<string, string[]> Libraries = new(StringComparer.Ordinal)
        {
            ["YamlDotNet"] = ["HpcBatchNorm.Training"],
            ["SkiaSharp"] = ["HpcBatchNorm.Data", "HpcBatchNorm.Reporting", "HpcBatchNorm.Experiments"],
            ["Spectre.Console"] = [],
            ["System.CommandLine"] = [],
        };

        private static string PathOf(string assembly) => Path.Combine(AppContext.BaseDirectory, assembly + ".dll");

        [Fact]
        public void Assemblies_ReferenceOnlyWhatIsDrawn()
        {
            foreach ((string assembly, string[] drawn) in Drawn)
            {
                foreach (string reference in AssemblyReferences.Assemblies(PathOf(assembly)))
                {
                    if (reference.StartsWith("HpcBatchNorm", StringComparison.Ordinal) || reference == "hpcbn")
                    {
                        Assert.True(drawn.Contains(reference), $"{assembly} references {reference}, which is not drawn.");
                    }
                    else if (Libraries.TryGetValue(reference, out string[]? users))
                    {
                        Assert.True(users.Contains(assembly), $"{assembly} references {reference}, which is only for {string.Join(", ", users.DefaultIfEmpty("the command"))}.");
                    }
                }
            }
        }

        [Fact]
        public void EveryAssemblyOfTheSources_IsDrawn()
        {
            string[] projects = [.. new[] { "src", "interop" }.SelectMany(f => Directory.GetFiles(Support.RepoPaths.InRepo(f), "*.csproj", SearchOption.AllDirectories))
                .Select(Path.GetFileNameWithoutExtension).OfType<string>()
                .Where(p => p != "HpcBatchNorm.Cli" && !p.StartsWith("HpcBatchNorm.Native.", StringComparison.Ordinal))]; // those have no assembly
            Assert.Equal(Drawn.Keys.Order(StringComparer.Ordinal), projects.Order(StringComparer.Ordinal));
        }

        [Fact]
        public void Namespaces_HaveNoCircle()
        {
            Dictionary<(string From, string To), string> edges = [];
            foreach (string assembly in Drawn.Keys)
            {
                foreach (((string from, string to), string example) in AssemblyReferences.Namespaces(PathOf(assembly)))
                {
                    (string a, string b) = (Room(from), Room(to));
                    if (a != b && a.StartsWith("HpcBatchNorm", StringComparison.Ordinal) && b.StartsWith("HpcBatchNorm", StringComparison.Ordinal))
                    {
                        edges.TryAdd((a, b), example);
                    }
                }
            }

            output.WriteLine(Matrix(edges.Keys));
            string[] circles = Circles(edges);
            Assert.True(circles.Length == 0, $"Namespaces use one another in a circle:\n{string.Join('\n', circles)}");
        }

        /// <summary>What the three backends share is above none of them, and none of them is above another.</summary>
        [Fact]
        public void Backends_DoNotUseOneAnother()
        {
            string[] backends = ["Reference", "OneDnn", "Cudnn"];
            foreach (((string from, string to), string example) in AssemblyReferences.Namespaces(PathOf("HpcBatchNorm")))
            {
                const string Backends = "HpcBatchNorm.Backends.";
                bool across = from.StartsWith(Backends, StringComparison.Ordinal) && to.StartsWith(Backends, StringComparison.Ordinal)
                    && backends.Contains(from[Backends.Length..]) && backends.Contains(to[Backends.Length..]);
                Assert.False(across, example);
            }
        }

        [Fact]
        public void AWrongReference_IsFound()
        {
            Dictionary<(string From, string To), string> edges = AssemblyReferences.Namespaces(typeof(ArchitectureTests).Assembly.Location)
                .Where(e => e.Key.From.Contains(".Wrong.", StringComparison.Ordinal) && e.Key.To.Contains(".Wrong.", StringComparison.Ordinal)).ToDictionary();

            string circle = Assert.Single(Circles(edges));
            Assert.Contains("Wrong.Lower.Low uses HpcBatchNorm.Tests.Architecture.Wrong.Upper.High", circle, StringComparison.Ordinal);
        }

        /// <summary>The three backends belong to the room that makes them by name.</summary>
        private static string Room(string name) => name.StartsWith("HpcBatchNorm.Backends.", StringComparison.Ordinal) ? "HpcBatchNorm.Backends" : name;

        /// <summary>Namespaces that are left when those that use no other are taken away again and again, with an example of each use among them.</summary>
        private static string[] Circles(Dictionary<(string From, string To), string> edges)
        {
            HashSet<(string From, string To)> left = [.. edges.Keys];
            while (left.RemoveWhere(e => !left.Any(next => next.From == e.To)) > 0)
            {
            }

            // From the other side too, so that what only uses a circle is not shown.
            while (left.RemoveWhere(e => !left.Any(before => before.To == e.From)) > 0)
            {
            }

            return left.Count == 0 ? [] : [string.Join('\n', left.Order().Select(e => $"{e.From} -> {e.To}: {edges[e]}"))];
        }

        /// <summary>A row and a column for each namespace, lower ones first; x where the row uses the column.</summary>
        private static string Matrix(IEnumerable<(string From, string To)> edges)
        {
            List<(string From, string To)> uses = [.. edges];
            List<string> order = [];
            HashSet<string> left = [.. uses.SelectMany(e => new[] { e.From, e.To })];
            while (left.Count > 0)
            {
                string next = left.Order(StringComparer.Ordinal).FirstOrDefault(n => !uses.Any(e => e.From == n && left.Contains(e.To))) ?? left.Order(StringComparer.Ordinal).First();
                order.Add(next);
                left.Remove(next);
            }

            var text = new StringBuilder();
            for (int i = 0; i < order.Count; i++)
            {
                text.Append(System.Globalization.CultureInfo.InvariantCulture, $"{order[i],-44} {i,2}  ");
                text.AppendLine(string.Concat(order.Select((n, j) => j == i ? '\\' : uses.Contains((order[i], n)) ? 'x' : '.')));
            }

            return text.ToString();
        }
    }
}

// A reference the wrong way, for the test that such a reference is found.
namespace HpcBatchNorm.Tests.Architecture.Wrong.Lower
{
    internal static class Low
    {
        public static int Depth => Upper.High.Depth - 1;
    }
}

namespace HpcBatchNorm.Tests.Architecture.Wrong.Upper
{
    internal static class High
    {
        public static int Depth => 1;

        public static int Under => Lower.Low.Depth;
    }
}
