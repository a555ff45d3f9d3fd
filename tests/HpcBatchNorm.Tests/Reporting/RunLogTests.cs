using HpcBatchNorm.Training;

namespace HpcBatchNorm.Tests.Reporting;

public sealed class RunLogTests : IDisposable
{
    private readonly string _path = Path.Combine(Directory.CreateTempSubdirectory("hpcbn-log").FullName, "metrics.jsonl");

    public void Dispose() => Directory.Delete(Path.GetDirectoryName(_path)!, recursive: true);

    [Fact]
    public void Update_ReadsWhatWasAppended_AndNoHalfLine()
    {
        var log = new RunLog(_path);
        Assert.Empty(log.Update().Train);
        File.WriteAllText(_path, Line(20, 2.5) + Line(40, 2.25)[..30]);
        Assert.Equal([20], log.Update().Train.Select(t => t.Step));
        File.AppendAllText(_path, Line(40, 2.25)[30..] + Line(60, 2));

        long before = log.Version;
        Assert.Equal([(20L, 2.5), (40L, 2.25), (60L, 2.0)], log.Update().Train.Select(t => (t.Step, t.Loss)));
        Assert.NotEqual(before, log.Version);
        before = log.Version;
        Assert.Equal(before, log.Update().Version);
    }

    [Fact]
    public void Update_AfterAResumeReplacedTheFile_ReadsItAnew()
    {
        var log = new RunLog(_path);
        File.WriteAllText(_path, Line(20, 2.5) + Line(40, 2.25));
        log.Update();
        // Dropped and repeated with another value: as long as before.
        File.WriteAllText(_path, Line(20, 2.5) + Line(40, 2.75));
        Assert.Equal([2.5, 2.75], log.Update().Train.Select(t => t.Loss));
        File.WriteAllText(_path, Line(20, 1.5));
        Assert.Equal([1.5], log.Update().Train.Select(t => t.Loss));
    }

    [Fact]
    public void Outcome_IsThatOfTheLastProcess()
    {
        const string Start = """{"type":"start","step":0,"total_steps":10,"title":"a","machine":"m","process":1,"facts":{"network":"n"}}""" + "\n";
        File.WriteAllText(_path, Start + Line(5, 1) + """{"type":"end","outcome":"interrupted"}""" + "\n");
        var log = new RunLog(_path);
        Assert.Equal("interrupted", log.Update().Outcome);
        File.AppendAllText(_path, Start);
        Assert.Null(log.Update().Outcome);
        Assert.Equal([("network", "n")], log.Start!.Facts);
    }

    [Fact]
    public void Number_ThatIsNull_IsNaN()
    {
        File.WriteAllText(_path, """{"type":"train","step":3,"loss":null}""" + "\n");

        Assert.True(double.IsNaN(Assert.Single(new RunLog(_path).Update().Train).Loss));
    }

    private static string Line(int step, double loss) => FormattableString.Invariant($$"""{"type":"train","step":{{step}},"epoch":{{step / 100.0}},"loss":{{loss:0.00}},"seconds":{{step}}}""") + "\n";
}
